"""Losses of annealed chains with a learned velocity (an *escort*): CMCD and NETS."""
