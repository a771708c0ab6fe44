"""Unnormalised densities, one file each."""
