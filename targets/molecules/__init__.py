"""Molecules in classical force fields: energies and analytic gradients, without an engine."""
