"""Where cells run: processes of this machine, or a Ray cluster."""
