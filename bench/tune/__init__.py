"""Random search over the parameters of samplers, scored without the truth."""
