"""Densities of parameters that have bounds: the table, the transforms and their Jacobians."""
