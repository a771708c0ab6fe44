"""Writes logistic_cancer.npy with its provenance; needs scikit-learn, which ships the measurements.

    python targets/data/make_logistic_cancer.py FOLDER

The array is frozen: rerunning this elsewhere must give it to 1e-12, or the file is kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import sklearn
from sklearn.datasets import load_breast_cancer


def signed_rows() -> np.ndarray:
    """(569, 31) float64: y (1, z), y = 1 benign, -1 malignant, z the standardised features.

    Standardised with the sd of 569 values (not 568), as scikit-learn's StandardScaler does."""
    features, label = load_breast_cancer(return_X_y=True)
    z = (features - features.mean(0)) / features.std(0)
    return np.where(label == 1, 1.0, -1.0)[:, None] * np.column_stack([np.ones(len(z)), z])


def main(folder: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, signed_rows())
    raw = buffer.getvalue()
    (folder / "logistic_cancer.npy").write_bytes(raw)
    note = {
        "what": (signed_rows.__doc__ or "").partition("\n")[0],
        "source": "Wisconsin diagnostic breast cancer (Wolberg, Street and Mangasarian, UCI "
        "Machine Learning Repository, 1995, CC BY 4.0), as shipped with scikit-learn",
        "command": "python targets/data/make_logistic_cancer.py targets/data",
        "scikit-learn": sklearn.__version__,
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    (folder / "logistic_cancer.json").write_text(json.dumps(note, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
