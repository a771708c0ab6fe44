"""Three folders, one import name: bench/ is `tiltbench`, targets/ and samplers/ sub-packages of it.

The packages are found, not listed, so that a new sub-folder is never missing from the wheel.
"""

from setuptools import find_packages, setup

ROOTS = {"tiltbench": "bench", "tiltbench.targets": "targets", "tiltbench.samplers": "samplers"}

setup(
    package_dir=ROOTS,
    packages=[
        name
        for root, folder in ROOTS.items()
        for name in [root, *(f"{root}.{sub}" for sub in find_packages(folder))]
    ],
)
