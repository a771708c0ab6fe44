"""`make gpu`: one visit to a GPU, of minutes and without network, and what it tells.

`python -m tests.gpu --device cuda` runs the sections of `visit.SECTIONS`, one file each, and writes
results/published/gpu.md; on a CPU it is a dry run at tiny sizes, whose page is not published.
"""
