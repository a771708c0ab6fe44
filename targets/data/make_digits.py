"""Writes digits.npy with its provenance; needs scikit-learn, which ships the images.

python targets/data/make_digits.py FOLDER
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import sklearn
from sklearn.datasets import load_digits


def rows() -> np.ndarray:
    """(1797, 65) uint8: 64 grey levels 0..16 of an 8 x 8 image, row by row, then its digit."""
    images, digit = load_digits(return_X_y=True)
    return np.column_stack([images, digit]).astype(np.uint8)


def main(folder: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows())
    raw = buffer.getvalue()
    (folder / "digits.npy").write_bytes(raw)
    note = {
        "what": (rows.__doc__ or "").partition("\n")[0],
        "source": "Optical Recognition of Handwritten Digits, the test set of 13 writers (Alpaydin "
        "and Kaynak, UCI Machine Learning Repository, 1998, CC BY 4.0), as shipped with "
        "scikit-learn (BSD-3-Clause)",
        "command": "python targets/data/make_digits.py targets/data",
        "scikit-learn": sklearn.__version__,
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    (folder / "digits.json").write_text(json.dumps(note, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
