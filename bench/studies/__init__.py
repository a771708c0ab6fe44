"""Studies, one folder each: a question, its measurement, its claims, its pictures."""
