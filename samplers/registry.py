"""Samplers and networks, found by folder (see tiltbench.targets.registry)."""

from pathlib import Path

from tiltbench.targets.registry import Registry

HERE = Path(__file__).parent

SAMPLERS = Registry(
    "sampler",
    (
        (HERE / "losses", "tiltbench.samplers.losses"),
        (HERE / "presets.py", "tiltbench.samplers.presets"),
        (HERE / "escorts", "tiltbench.samplers.escorts"),
        (HERE / "classical", "tiltbench.samplers.classical"),
        (HERE / "baselines", "tiltbench.samplers.baselines"),
    ),
    "tiltbench.samplers",
)
NETWORKS = Registry(
    "network",
    (
        (HERE / "networks.py", "tiltbench.samplers.networks"),
        (HERE / "equivariant.py", "tiltbench.samplers.equivariant"),
        (HERE / "convolutional.py", "tiltbench.samplers.convolutional"),
        (HERE / "adapter.py", "tiltbench.samplers.adapter"),
    ),
)
RECIPES = Registry(
    "recipe",
    (
        (HERE / "recipe.py", "tiltbench.samplers.recipe"),
        (HERE / "escort.py", "tiltbench.samplers.escort"),
    ),
)
ANNEALINGS = Registry("annealing", ((HERE / "annealing.py", "tiltbench.samplers.annealing"),))
