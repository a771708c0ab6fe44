"""The HTML page: one file with all its data and scripts."""
