"""One file per family of geometry formats; which of them a file is for is decided in geometry.py."""
