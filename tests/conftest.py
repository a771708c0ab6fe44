"""One torch thread a process: pytest-xdist uses the cores (stack.md)."""

import torch

torch.set_num_threads(1)
