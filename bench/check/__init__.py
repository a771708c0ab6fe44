"""The contract of a plug-in, one file a kind of thing; `tiltbench check` prints it."""
