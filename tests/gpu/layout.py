"""The package where nothing was installed: three folders laid out as `tiltbench`, and wheels.

Standard library only: this runs before the package can be imported.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("targets", "samplers")  # folders beside bench/, and links inside it
PACKAGES = {  # what a machine with PyTorch often lacks: import name -> what needs it
    "cyclopts": "the command needs it; `make gpu-wheels`",
    "msgspec": "records of runs and the tests need it; `make gpu-wheels`",
    "arviz_stats": "R-hat needs it; `make gpu-wheels`",
    "ot": "w2 is a dash without it; its wheel, of 33 MB, is not fetched",
}


def lay_out(root: Path, scratch: Path) -> Path:
    """The folder that holds the package `tiltbench`.

    src/ itself where its links arrived; a copy below `scratch` where links are missing, or arrived
    as text files that name what they point to."""
    source = root / "src"
    linked = [source / "tiltbench", *(source / "tiltbench" / layer for layer in LAYERS)]
    if all((folder / "__init__.py").is_file() for folder in linked):
        return source
    package = scratch / "tiltbench"

    def left_out(folder: str, names: list[str]) -> set[str]:
        links = LAYERS if Path(folder) == root / "bench" else ()
        return {name for name in names if name in links or name == "__pycache__"}

    shutil.copytree(root / "bench", package, ignore=left_out)
    for layer in LAYERS:
        shutil.copytree(root / layer, package / layer, ignore=left_out)
    return scratch


def missing() -> list[str]:
    """Of PACKAGES those that cannot be imported, in their order."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def unpack_wheels(wheels: Path, scratch: Path) -> Path | None:
    """The wheels of the folder installed below `scratch`, without network; None: there are none.

    Raises CalledProcessError where pip cannot, such as for wheels of another Python."""
    found = sorted(wheels.glob("*.whl"))
    if not found:
        return None
    words = (
        "install -q --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check"
    )
    subprocess.run(
        [sys.executable, "-m", "pip", *words.split(), "--root-user-action=ignore"]
        + ["--target", str(scratch), *map(str, found)],
        check=True,
    )
    return scratch


def prepare(root: Path, wheels: Path, scratch: Path) -> list[str]:
    """Makes the package importable here and in every process that this one starts; the names of
    PACKAGES that stay missing."""
    places = [str(lay_out(root, scratch / "package")), str(root)]
    if missing():
        try:
            unpacked = unpack_wheels(wheels, scratch / "wheels")
        except subprocess.CalledProcessError:
            print(f"the wheels in {wheels} cannot be installed on this Python: fetch them anew")
            unpacked = None
        places += [str(unpacked)] if unpacked else []
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*places, *([before] if before else [])])
    sys.path[:0] = [place for place in places if place not in sys.path]
    importlib.invalidate_caches()
    return missing()
