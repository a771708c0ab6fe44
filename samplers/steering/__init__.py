"""Steering without training: populations of paths, weighted and resampled on the way."""
