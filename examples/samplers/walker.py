"""A program as a sampler: random-walk Metropolis, written in `metropolis.py` beside this file."""

import sys
from pathlib import Path

from tiltbench.samplers.adapters.program import from_program

PROGRAM = Path(__file__).with_name("metropolis.py")

walker = from_program("walker", [sys.executable, str(PROGRAM)], parameters={"chains": 20})
