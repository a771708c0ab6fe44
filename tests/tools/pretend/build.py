"""The compiled guard: made once for its source and this torch, kept in .pytest_cache."""

import hashlib
import importlib.util
import os
import runpy
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")
CACHE = Path(__file__).parents[3] / ".pytest_cache" / "pretended"


class Unavailable(Exception):
    """There is no pretended device on this machine; one sentence says why."""


def torch_folder() -> Path:
    """Where torch is installed; it is not imported, for the guard must be there first."""
    return Path(importlib.util.find_spec("torch").origin).parent


def library() -> Path:
    """The shared library of the guard.  Raises Unavailable."""
    torch = torch_folder()
    version = runpy.run_path(str(torch / "version.py"))
    if version["cuda"] or version.get("hip"):
        raise Unavailable("this torch has GPU code of its own, beside which none can be pretended")
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++"))), None)
    if compiler is None:
        raise Unavailable("the pretended GPU needs a C++ compiler: install g++, or name one in CXX")
    key = hashlib.sha256(SOURCE.read_bytes() + version["__version__"].encode()).hexdigest()[:16]
    compiled = CACHE / f"guard-{key}.so"
    if not compiled.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # another process may build it at this moment
        half = compiled.with_suffix(f".{os.getpid()}")
        options = ["-std=c++20", "-shared", "-fPIC", f"-I{torch / 'include'}"]
        done = subprocess.run(
            [compiler, *options, str(SOURCE), "-o", str(half)], capture_output=True, text=True
        )
        if done.returncode:
            raise Unavailable(f"{compiler} does not compile the guard: {done.stderr[-500:]}")
        half.replace(compiled)
    return compiled
