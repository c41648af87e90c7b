"""Bundles on their way to others: archives and repositories, and the one door through which they come in."""
