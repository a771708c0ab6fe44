"""Speed and memory (`make perf`): one thread, CPU time; nothing here asserts a time.

The last test prints the table, so that all ratios come from one run, and writes it to
results/published/performance.md, which docs/performance.md shows beside other suites' figures.
"""

import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.tools.perf_page import high_water, publish
from tiltbench.plan.spec import build_target
from tiltbench.run.meter import Meter
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.escorts import nets_pinn as pinn
from tiltbench.samplers.losses.adjoint_matching import adjoint_matching
from tiltbench.samplers.losses.adjoint_sampling import adjoint_sampling
from tiltbench.samplers.losses.log_variance import log_variance
from tiltbench.samplers.losses.trajectory_balance import trajectory_balance
from tiltbench.samplers.networks.model import Network
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.targets.bases.interpolant import Ancestral, Interpolant, Regularised, Stepping
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.bases.schedules import RectifiedFlow
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, pose

pytestmark = pytest.mark.perf

PAGE = Path(__file__).resolve().parents[2] / "results" / "published" / "performance.md"
HUGE = Cost(10**12, 10**12)
TABLE: dict[str, str] = {}


@dataclass(frozen=True)
class Dense(Network):
    """The standard network evaluated in full, its time embedding included, at every point."""

    name = "Dense"

    def build(self, dim, process, generator):
        model = Mlp().build(dim, process, generator)
        control = model.control
        model.control = lambda x, t, hint=None: control(x, t.expand(x.shape[:-1]), hint)
        model.on_grid = lambda t: lambda x, k, hint: model.control(x, t[k], hint)
        return model


CASES = {
    "log_variance 512 x 100, gmm9": (log_variance, "gmm9", 512, Mlp()),
    "log_variance 512 x 100, gmm9, dense 37k": (log_variance, "gmm9", 512, Dense()),
    "trajectory_balance 300 x 100, gmm25": (trajectory_balance, "gmm25", 300, Mlp()),
}


def prepared(case):
    loss, target, paths, network = CASES[case]
    reference = Brownian(steps=100, ratio=4.0)
    sampler = Diffusion(loss, reference=reference, model=network, paths=paths)
    meter = Meter(HUGE)
    target = build_target({"name": target, "params": {}})
    problem = pose(target, reference, meter.watch)
    generator = torch.Generator().manual_seed(0)
    return sampler, problem, sampler.init(problem, HUGE, generator), generator, target


def cpu_seconds(f, rounds=5):
    f()
    start = time.process_time()
    for _ in range(rounds):
        f()
    return (time.process_time() - start) / rounds


@pytest.mark.parametrize("case", CASES)
def test_training_iteration(benchmark, case):
    sampler, problem, state, generator, _ = prepared(case)
    benchmark.pedantic(lambda: sampler.step(problem, state, generator), rounds=12, warmup_rounds=2)
    iteration = benchmark.stats.stats.median
    paths, steps = sampler.paths, problem.base.steps
    x, t = torch.randn(steps, paths, problem.dim), problem.base.grid(torch.zeros(1))[:-1, None]
    with torch.no_grad():
        forward = cpu_seconds(lambda: state.model.control(x, t))
    parameters = sum(p.numel() for p in state.model.parameters())
    TABLE[case] = (
        f"{iteration:.3f} s an iteration, {iteration / forward:.1f} x one plain forward pass, "
        f"{parameters} parameters, peak memory + {peak_memory(case):.0f} MB"
    )


def test_drawing(benchmark):
    sampler, problem, state, generator, _ = prepared("log_variance 512 x 100, gmm9")
    benchmark.pedantic(
        lambda: sampler.draw(problem, state, 2000, generator), rounds=8, warmup_rounds=1
    )
    rate = 2000 / benchmark.stats.stats.median
    TABLE["drawing 2,000 weighted samples, 100 steps"] = f"{rate:,.0f} samples per CPU-second"


def test_the_meter(benchmark):
    """What the wrapper adds to the reward of one training batch, as a share of the iteration."""
    case = "log_variance 512 x 100, gmm9"
    sampler, problem, state, generator, target = prepared(case)
    x = torch.randn(sampler.paths, 2)
    bare = pose(target, sampler.reference).reward

    metered, plain = (
        lambda: problem.reward.value_and_grad(x),
        lambda: bare.value_and_grad(x),
    )
    benchmark.pedantic(metered, rounds=200, warmup_rounds=10)
    times = [(cpu_seconds(metered, 300), cpu_seconds(plain, 300)) for _ in range(7)]
    added = sorted(more - less for more, less in times)[3]
    iteration = cpu_seconds(lambda: sampler.step(problem, state, generator), 4)
    TABLE["meter, value and gradient of 512 points"] = (
        f"{added * 1e6:.0f} us, {100 * added / iteration:.2f} % of a training iteration"
    )


def ratio(f, g, rounds=3, times=9):
    """Median of the CPU time of f over that of g, measured in turns."""
    pairs = [(cpu_seconds(f, rounds), cpu_seconds(g, rounds)) for _ in range(times)]
    return sorted(first / second for first, second in pairs)[times // 2]


def test_adjoint_matching_beside_adjoint_sampling():
    """Label, value and gradient against value and gradient, 12,800 points (x, t) each."""
    target = build_target({"name": "gmm9", "params": {}})
    reference = Brownian(steps=100)
    problem = pose(target, reference)
    generator = torch.Generator().manual_seed(0)
    model = Mlp().build(2, problem.base, generator)
    few, many = (
        Diffusion(loss, reference=reference, paths=paths)
        for loss, paths in ((adjoint_matching, 128), (adjoint_sampling, 12_800))
    )
    posed = few.posed(problem)
    with torch.no_grad():
        path = few.recipe.simulate(posed, model, few.paths, generator)
    bought = many.batch(problem, model, 0.5, generator)

    def matching():
        batch = adjoint_matching.label(posed, model, path, 0.5, generator)
        adjoint_matching.value(model, problem.base, batch, generator).backward()

    def sampling():
        adjoint_sampling.value(model, problem.base, bought, generator).backward()

    TABLE["adjoint matching, closed-form base, 12,800 points"] = (
        f"{ratio(matching, sampling):.2f} x adjoint sampling, its label included"
    )


class Learned(Interpolant):
    """A base whose denoiser is a neural network: 132 k multiplications a point."""

    schedule, steps, spread = RectifiedFlow(), 50, 1.0
    uncertainty = [0.5] * 50

    def __init__(self, stepping: Stepping):
        self.stepping = stepping
        torch.manual_seed(0)
        sizes = [3, 256, 256, 256, 2]
        layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
        self.net = torch.nn.Sequential(
            *(part for layer in layers[:-1] for part in (layer, torch.nn.SiLU())), layers[-1]
        ).requires_grad_(False)

    def denoise(self, x, k):
        t = torch.full_like(x[..., :1], self.times[k])
        return x + self.net(torch.cat([x, t], -1))

    def score(self, x, k):
        return self.current(x, k)[1]

    def current(self, x, k):
        """(velocity, score) from one evaluation."""
        mean = self.denoise(x, k)
        score = (self.signals[k] * mean - x) / self.noises[k] ** 2
        first, second = self.rates[k]
        return first * mean - second / 2 * score, score

    def denoise_rate(self, x, k):
        raise NotImplementedError


@pytest.mark.parametrize("stepping", [Ancestral(), Regularised()], ids=lambda s: s.name)
def test_lean_adjoint_of_a_network(stepping):
    """The label of 256 paths against one vector-Jacobian product of the denoiser a step."""
    base = Learned(stepping)
    problem = Problem(2, base, lambda x: torch.sin(x).sum(-1))
    generator = torch.Generator().manual_seed(0)
    model = Mlp().build(2, base, generator)
    sampler = Diffusion(adjoint_matching, paths=256)
    with torch.no_grad():
        path = sampler.recipe.simulate(problem, model, sampler.paths, generator)
    a = torch.randn(256, 2)

    def label():
        adjoint_matching.label(problem, model, path, 0.5, generator)

    def products():
        for k in range(base.steps):
            x = path.x[k].detach().requires_grad_()
            torch.autograd.grad(base.denoise(x, k), x, a)

    TABLE[f"lean adjoint, network base, {stepping.name}, 256 x 50"] = (
        f"{ratio(label, products):.2f} vector-Jacobian products a step"
    )


@pytest.mark.parametrize("dim, words", [(10, "exact divergence"), (50, "Hutchinson")])
def test_nets_beside_log_variance(dim, words, monkeypatch):
    """Whole iterations, 512 paths of 100 steps: as it is, at 16 times a path, and at all 101."""
    target = build_target({"name": "tilt_linear", "params": {"dim": dim, "steps": 100}})
    problem = pose(target, Brownian())

    def iteration(sampler):
        generator = torch.Generator().manual_seed(0)
        state = sampler.init(problem, HUGE, generator)
        return lambda: sampler.step(problem, state, generator)

    # as it ships a preset differs in more than its loss: here both train on one fresh batch a step
    plain = iteration(Diffusion(log_variance, paths=512))
    escorted = replace(pinn.nets_pinn.sampler, paths=512, repeats=1, memory=1)
    some = ratio(iteration(escorted), plain, 1, 5)
    monkeypatch.setattr(pinn, "TIMES", 101)
    every = ratio(iteration(escorted), plain, 1, 5)
    TABLE[f"NETS iteration, D = {dim}, {words}"] = (
        f"{some:.1f} x log-variance at 16 of 101 times a path, as it is; {every:.1f} x at all"
    )


def peak_memory(case):
    """MB by which two iterations raise the peak resident memory of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.perf.test_perf", case],
        cwd=PAGE.parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return float(done.stdout)


def measure_peak(case):
    torch.set_num_threads(1)
    sampler, problem, state, generator, _ = prepared(case)
    before = high_water()
    for _ in range(2):
        sampler.step(problem, state, generator)
    print(high_water() - before)


def test_table(capsys):
    lines = [
        "## Measured",
        "",
        "| what | one thread, CPU time |",
        "| --- | --- |",
        *(f"| {name} | {line} |" for name, line in TABLE.items()),
    ]
    publish(PAGE, lines, capsys)


if __name__ == "__main__":
    measure_peak(sys.argv[1])
