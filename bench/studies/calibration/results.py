"""What the study of calibration has to tell of each sampler."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from tiltbench.report.compare import holm
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.calibration.inverse import (
    STATISTICS,
)
from tiltbench.studies.calibration.ranks import uniformity


class MethodResult(NamedTuple):
    """A method over the replicates."""

    method: str
    ranks: Float[Tensor, "l f"]  # of the statistics at the truth
    pixels: Float[Tensor, "l 64"]  # ranks of the truth's pixels
    ess: Float[Tensor, " l"]  # draws
    mean: Float[Tensor, "l 64"]
    sd: Float[Tensor, "l 64"]
    se: Float[Tensor, "l 64"]  # of the mean
    shown: Float[Tensor, "l 2 64"]  # two draws

    @property
    def p(self) -> dict[str, float]:
        """That the ranks of each statistic are uniform."""
        columns = self.ranks.T.numpy()
        return {name: uniformity(u) for name, u in zip(STATISTICS, columns, strict=True)}

    def coverage(self, level: float) -> Estimate:
        """By the central intervals of probability `level` of the pixels; the pixels of an image
        depend on each other, the replicates do not."""
        return mean_of(((self.pixels - 0.5).abs() < level / 2).double().mean(1))

    def off(self, exact: MethodResult) -> Float[Tensor, " l"]:
        """Distance of the posterior mean from the exact one, in posterior sd, rms over pixels."""
        return rms(self.mean - exact.mean) / rms(exact.sd)

    def noise(self, exact: MethodResult) -> Float[Tensor, " l"]:
        """The standard error of the method's own mean, in the same units."""
        return rms(self.se) / rms(exact.sd)


def rms(x: Float[Tensor, "l d"]) -> Float[Tensor, " l"]:
    return x.square().mean(1).sqrt()


def mean_of(values: Float[Tensor, " l"]) -> Estimate:
    return Estimate(float(values.mean()), float(values.std()) / len(values) ** 0.5, len(values))


class UniformityTests(NamedTuple):
    """The tests of uniformity of all methods and statistics, by (method, statistic)."""

    all: dict[tuple[str, str], float]
    rejected: set[tuple[str, str]]

    def of(self, method: str) -> list[str]:
        return [f for f in STATISTICS if (method, f) in self.rejected]


def uniformity_tests(results: list[MethodResult]) -> UniformityTests:
    p = {(result.method, f): value for result in results for f, value in result.p.items()}
    names = {"\t".join(key): key for key in p}
    return UniformityTests(
        p, {names[name] for name in holm({n: p[key] for n, key in names.items()})}
    )
