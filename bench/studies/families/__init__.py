"""Families of methods, told apart by paired tests."""
