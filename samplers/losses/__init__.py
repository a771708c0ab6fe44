"""Losses of a control, one file each: what is paid for, and what is minimised."""
