"""Targets that tilt a base: a reward on a flow or diffusion, one file each."""
