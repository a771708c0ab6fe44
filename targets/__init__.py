"""What is sampled: densities, tilts, the base processes under them, and their truths."""
