"""A static site of all published sets: a page a suite, one a method, one a target; from disk."""
