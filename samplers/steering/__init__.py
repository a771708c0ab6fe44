"""Steering without training: populations of paths, weighed and resampled on the way."""
