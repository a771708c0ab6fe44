"""Metrics, one file each: what a score is."""
