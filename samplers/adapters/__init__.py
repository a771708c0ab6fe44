"""Samplers that know nothing of the suite: functions of PyTorch, NumPy or JAX, and programs."""
