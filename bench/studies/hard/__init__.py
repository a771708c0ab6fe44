"""Figures asked for within stated minutes of training."""
