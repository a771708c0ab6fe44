"""Networks for controls and potentials."""
