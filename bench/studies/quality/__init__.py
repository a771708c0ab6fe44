"""The peers' own runs of 90 CPU-seconds, and ours beside them."""
