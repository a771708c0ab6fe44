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
        (HERE / "steering", "tiltbench.samplers.steering"),
    ),
    "tiltbench.samplers",
)
NETWORKS = Registry("network", ((HERE / "networks", "tiltbench.samplers.networks"),))
RECIPES = Registry(
    "recipe",
    tuple(
        (HERE / "recipes" / f"{file}.py", f"tiltbench.samplers.recipes.{file}")
        for file in ("recipe", "truncated", "escorted", "resampled", "learned_base")
    ),
)
ANNEALINGS = Registry(
    "annealing", ((HERE / "recipes" / "annealing.py", "tiltbench.samplers.recipes.annealing"),)
)
EXPLORATIONS = Registry(
    "exploration",
    ((HERE / "behaviour" / "exploration.py", "tiltbench.samplers.behaviour.exploration"),),
)
REPLAYS = Registry(
    "replay", ((HERE / "behaviour" / "replay.py", "tiltbench.samplers.behaviour.replay"),)
)
SEARCHES = Registry(
    "search",
    ((HERE / "behaviour" / "local_search.py", "tiltbench.samplers.behaviour.local_search"),),
)
