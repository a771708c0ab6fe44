"""Base processes: noising, interpolants, pretrained networks, and their parts."""
