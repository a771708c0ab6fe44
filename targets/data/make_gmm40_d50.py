"""Writes gmm40_d50.npy with its provenance.

    python targets/data/make_gmm40_d50.py FOLDER

The means are frozen: rerunning this on another torch must give the same bytes, or the file is kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def means() -> Tensor:
    """(40, 50) float64: (U[0, 1] - 1/2) 80 in float64 from torch's CPU generator, seed 50."""
    g = torch.Generator().manual_seed(50)
    return (torch.rand(40, 50, generator=g, dtype=torch.float64) - 0.5) * 80


def main(folder: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, means().numpy())
    raw = buffer.getvalue()
    (folder / "gmm40_d50.npy").write_bytes(raw)
    note = {
        "what": f"means of gmm40_d50: {means.__doc__}",
        "command": "python targets/data/make_gmm40_d50.py targets/data",
        "torch": torch.__version__.partition("+")[0],
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    (folder / "gmm40_d50.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
