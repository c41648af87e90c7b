"""Figures and pictures of trained models, and the HTML report made of them."""
