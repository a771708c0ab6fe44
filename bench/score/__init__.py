"""From draws on disk to numbers, and the floors they are compared with."""
