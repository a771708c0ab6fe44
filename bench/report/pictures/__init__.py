"""Pictures of scores, curves, draws and weights."""
