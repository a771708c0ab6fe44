"""Bayesian posteriors in unconstrained parameters, one model a file."""
