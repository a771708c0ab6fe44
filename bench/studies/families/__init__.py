"""Families of methods, compared by paired tests."""
