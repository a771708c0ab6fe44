"""Losses of an escort: CMCD and NETS."""
