"""Escorted processes (to come)."""
