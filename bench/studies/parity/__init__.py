"""Published rows of other people's tables, and ours beside them."""
