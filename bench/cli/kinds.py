"""The kinds of things that go by name, in the plural as they are listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiltbench.targets.registry import Registry

KINDS = (
    "targets",
    "samplers",
    "metrics",
    "suites",
    "studies",
    "references",
    "networks",
    "recipes",
    "annealings",
    "explorations",
    "replays",
    "searches",
    "schedules",
    "steppings",
)


def registries() -> Mapping[str, Callable[[], Registry]]:
    """All kinds but suites, which are files of their own; each is imported when it is called."""

    def of(module: str, name: str) -> Callable[[], Registry]:
        def load() -> Registry:
            from importlib import import_module

            registry: Registry = getattr(import_module(module), name)
            return registry

        return load

    targets, samplers = "tiltbench.targets.registry", "tiltbench.samplers.registry"
    return {
        "targets": of(targets, "TARGETS"),
        "samplers": of(samplers, "SAMPLERS"),
        "metrics": of("tiltbench.plan.spec", "METRICS"),
        "studies": of("tiltbench.plan.spec", "STUDIES"),
        "references": of(targets, "REFERENCES"),
        "networks": of(samplers, "NETWORKS"),
        "recipes": of(samplers, "RECIPES"),
        "annealings": of(samplers, "ANNEALINGS"),
        "explorations": of(samplers, "EXPLORATIONS"),
        "replays": of(samplers, "REPLAYS"),
        "searches": of(samplers, "SEARCHES"),
        "schedules": of(targets, "SCHEDULES"),
        "steppings": of(targets, "STEPPINGS"),
    }
