"""One torch thread a process: pytest-xdist uses the cores (stack.md).  Pictures in one format: the
second doubles their price, and one test makes both."""

import torch

from tiltbench.report import style

torch.set_num_threads(1)
style.FORMATS = ("png",)
