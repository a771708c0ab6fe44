"""The truth of a target: its draws, log Z and observables against the density, and alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import partial

import torch
from torch import Generator, Tensor

from tiltbench.check.findings import Finding, Snapshot, agrees, expect, format_estimate
from tiltbench.check.symmetries import Function
from tiltbench.estimators import average, bar
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.bases.process import Uncontrolled, simulate
from tiltbench.targets.target import Density, Target, Tilt, Truth

N = 4000  # exact draws per statistical check
HEAVY = 0.1  # part of the mean square in one draw: 0.02 of Student's t with 3 degrees of freedom
LOW = 4  # dimensions up to which draws from wide Gaussians meet every part of a target
PROPOSED = 100_000
WIDTHS = (0.3, 1.0, 3.0)  # of these Gaussians, in scales


def log_integrand(target: Target) -> Function | None:
    """What integrates to Z: rho, or p_base exp r; None where p_base has no density."""
    match target:
        case Density():
            return target.log_rho
        case Tilt(base=Known() as base):
            return lambda x: base.log_end(x) + target.reward(x)
    return None


def gradient(f: Function, x: Tensor) -> Tensor:
    """Of f at x (*b, d); 0 where f has no graph, as one that is constant on a box has none."""
    x = x.detach().requires_grad_()
    total = f(x).sum()
    if not total.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(total, x, allow_unused=True, materialize_grads=True)[0]


def stated(target: Target) -> Iterator[Finding]:
    """That there is a truth, and that its draws are draws."""
    truth = target.truth()
    yield expect(
        isinstance(truth, Truth),
        f"truth: {truth.source}" if isinstance(truth, Truth) else "",
        f"truth() returns {type(truth).__name__}",
        'return Truth("where it comes from", ...), or Truth("unknown")',
    )
    yield from _left_alone(target, truth)
    if truth.sample is None:
        return
    n = int(min(50, truth.held))
    x, again, other = (truth.sample(n, Generator().manual_seed(s)) for s in (1, 1, 2))
    yield expect(
        isinstance(x, Tensor) and x.shape == (n, target.dim) and x.dtype == torch.float64,
        f"{n} draws are a ({n}, {target.dim}) float64 tensor",
        f"{n} draws are of shape {tuple(x.shape)}, {x.dtype}, not ({n}, {target.dim}), float64"
        if isinstance(x, Tensor)
        else f"the draws are a {type(x).__name__}, not a ({n}, {target.dim}) float64 tensor",
        "let sample(n, generator) return (n, dim) in float64 on the generator's device",
    )
    yield expect(
        bool(x.isfinite().all()),
        "the draws are finite",
        f"{int((~x.isfinite().all(-1)).sum())} of {n} draws are NaN or infinite",
        "draw from a law that is proper on the whole of R^dim",
    )
    same = torch.equal(x, again)
    yield expect(
        same and not torch.equal(x, other),
        "draws follow the generator's seed",
        "the draws ignore the generator: "
        + ("other seeds give the same draws" if same else "equal seeds give other draws"),
        "pass the generator to every random call, and let `sample` change nothing that is stored",
    )
    first = x.clone()
    x.fill_(0.0)  # as a caller may who has been given draws
    yield expect(
        torch.equal(first, truth.sample(n, Generator().manual_seed(1))),
        "draws are the caller's own",
        "draws share memory with what the truth stores: writing into them changes later draws",
        "return a copy: index with a tensor of indices, or .clone()",
    )


def _left_alone(target: Target, truth: Truth) -> Iterator[Finding]:
    """What the functions of the truth do to the points that they are shown."""
    g = Generator().manual_seed(41)
    draw = partial(torch.randn, 20, target.dim, generator=g, dtype=torch.float64)
    one = torch.ones(20, dtype=torch.float64)
    functions = {f"observable {name}": o.f for name, o in truth.observables.items()}
    if truth.modes is not None:
        functions["modes.assign"] = truth.modes.assign
    if (score := truth.noised_score) is not None:
        functions["noised_score"] = lambda x: score(x, one, 0 * one)
    for name, f in functions.items():
        x = target.scale * target.project(draw())
        snapshot = Snapshot(x)
        f(x)
        if snapshot.changed:
            what = f"{name} changes the draws in place, for everything after it"
            yield Finding(False, what, "make new tensors: no += and no functions that end in _")


def against_density(target: Target, f: Function) -> Iterator[Finding]:
    """Draws, observables, cells, scores and log Z of the truth against f, log rho or the reward."""
    truth = target.truth()
    if truth.sample is None:
        yield Finding(True, "draws and density were not compared: the truth has no draws")
        return
    x = truth.sample(int(min(N, truth.held)), Generator().manual_seed(3))
    y = f(x)
    empty = int((y == -math.inf).sum())
    yield expect(
        empty == 0,
        "every exact draw has density",
        f"{empty} of {len(x)} exact draws have zero density",
        "draws and density are of different laws: compare their formulas",
    )
    yield _scale(target, x)
    log_f = log_integrand(target)
    if log_f is not None:
        yield from _stein(target, log_f, x)
    yield from _observables(truth, x)
    if truth.modes is not None:
        yield from _cells(truth, x)
    if truth.noised_score is not None and log_f is not None:
        score = truth.noised_score(x[:50], torch.ones(50), torch.zeros(50))
        yield expect(
            torch.allclose(score, gradient(log_f, x[:50]), rtol=1e-5, atol=1e-5 / target.scale),
            "noised_score without noise is the score",
            "noised_score at signal 1, noise 0 is not the gradient of log p*",
            "it is grad log of the law of signal X + noise xi",
        )
    if truth.log_Z is not None:
        if log_f is not None:
            yield _log_Z(truth, _estimate(*_on_subspace(target, log_f, x)))
        if isinstance(target, Tilt):
            yield _log_Z(truth, _from_base(target))


def _stein(target: Target, log_f: Function, x: Tensor) -> Iterator[Finding]:
    """E[x . grad log p] = -rank and E grad log p = 0, where p has no edge."""
    moved = 0.3 * target.scale * torch.cos(torch.arange(x.shape[-1], dtype=x.dtype))
    around = log_f(torch.cat([x + moved, x - moved]))
    if (around == -math.inf).any():
        yield Finding(True, "Stein's identity was not tried: the density has an edge")
        return
    g = gradient(log_f, x)
    mean = average((x * g).sum(-1))
    yield expect(
        agrees(mean, -target.rank),
        f"draws and density agree: E[x . grad log p] = {format_estimate(mean)} for -{target.rank}",
        f"draws and density disagree: E[x . grad log p] = {format_estimate(mean)} "
        f"over exact draws, not -{target.rank}",
        "one of the two is of another law: compare widths and constants",
    )
    mean = max((average(column) for column in g.T), key=lambda e: abs(e.value) / (e.se or 1))
    yield expect(
        agrees(mean, 0.0),
        "the gradient of log p has mean 0 over the draws",
        f"a coordinate of grad log p has mean {format_estimate(mean)} over exact draws, not 0",
        "one of the two is of another law: compare places and weights",
    )


def _scale(target: Target, x: Tensor) -> Finding:
    """Not of heavy tails: where single draws carry the mean square, it has no value."""
    square = x.square().sum(-1)
    rms = float((square.mean() / target.rank).sqrt())
    share = float(square.max() / square.sum())
    if share > HEAVY:
        what = f"scale was not compared: one exact draw carries {share:.0%} of the mean square"
        return Finding(True, what)
    default = " (its default)" if type(target).scale is Target.scale else ""
    return expect(
        rms / 1.5 <= target.scale <= rms * 1.5,
        f"the rms coordinate of exact draws is {rms:.3g}, scale says {target.scale:.3g}",
        f"scale is {target.scale:.3g}{default}, the rms coordinate of exact draws is {rms:.3g}",
        f"state scale = {rms:.2g}: references and step sizes start from it",
    )


def _observables(truth: Truth, x: Tensor) -> Iterator[Finding]:
    for name, (f, stated, sd, se) in truth.observables.items():
        mean = average(f(x))
        yield expect(
            f(x).shape == (len(x),) and agrees(mean, stated, se),
            f"observable {name}: {format_estimate(mean)} for {stated:.5g}",
            f"observable {name} is {format_estimate(mean)} over exact draws, "
            f"the truth says {stated:.5g}",
            "let f map (B, D) to (B,) and state its exact mean",
        )
        spread = float(f(x).std())
        yield expect(
            0.7 * sd <= spread <= 1.4 * sd,
            f"observable {name}: sd {spread:.3g} for {sd:.3g}",
            f"observable {name} has sd {spread:.3g} over exact draws, the truth says {sd:.3g}",
            "state the sd of f(X), not of its mean; choose an f with a finite one",
        )


def _cells(truth: Truth, x: Tensor) -> Iterator[Finding]:
    assert truth.modes is not None
    weight, cell = truth.modes.weight.to(x), truth.modes.assign(x)
    count = torch.bincount(cell, minlength=len(weight)).double()
    yield expect(
        len(count) == len(weight) <= 100 and abs(float(weight.sum()) - 1) < 1e-6,
        f"{len(weight)} cells whose masses sum to 1",
        f"{len(weight)} cells with masses that sum to {float(weight.sum()):.6g}; "
        f"draws fall in cells up to {len(count) - 1}",
        "state at most 100 masses that sum to 1, and assign indices below their number",
    )
    sd = (len(x) * weight * (1 - weight)).sqrt().clamp(min=1)
    worst = int(((count - len(x) * weight).abs() / sd).argmax())
    gap = float((count[worst] - len(x) * weight[worst]).abs() / sd[worst])
    share = float(count[worst]) / len(x)
    yield expect(
        gap < 5.5,
        "the draws fall in the cells as their masses say",
        f"cell {worst} holds {share:.4g} of exact draws, its mass says {float(weight[worst]):.4g}",
        "state the mass of the cell, which is not the component's weight where they overlap",
    )


def _log_Z(truth: Truth, estimate: Estimate) -> Finding:
    assert truth.log_Z is not None
    if not estimate.se < 0.5:
        return Finding(True, "log Z was not compared: no simple proposal reaches the target")
    hint, remedy = _likeness(truth.log_Z, estimate)
    return expect(
        agrees(estimate, truth.log_Z, truth.log_Z_se),
        f"log Z is {truth.log_Z:.6g}, estimated {format_estimate(estimate)}",
        f"log Z is {format_estimate(estimate)} by estimation, "
        f"the truth says {truth.log_Z:.6g}{hint}",
        remedy,
    )


def _likeness(stated: float, estimate: Estimate) -> tuple[str, str]:
    """What a wrong log Z looks like, and the remedy."""
    remedy = "state the log of the integral of exp(log_rho), or of E_base exp r, constants included"
    if agrees(estimate, -stated):
        return ", which is the log of 1/Z, the normalising constant", f"turn the sign: {remedy}"
    if stated > 0 and agrees(estimate, math.log(stated)):
        return ", which is Z itself", f"take its logarithm: {remedy}"
    if stated == 0:
        return ", as if exp(log_rho) were normalised", remedy
    return "", remedy


def _estimate(log_f: Function, x: Tensor) -> Estimate:
    """Bennett's estimate between the draws and a proposal fitted to the first half of them: one
    Gaussian, or one around each of 400 draws; whichever has the smaller error."""
    (fit, held), dim = x.chunk(2), x.shape[-1]
    root = torch.linalg.cholesky(torch.cov(fit.T).reshape(dim, -1))
    width = (4 / ((dim + 2) * 400)) ** (1 / (dim + 4))
    estimates = []
    for centre, spread in ((fit.mean(0, keepdim=True), 1.0), (fit[:400], width), (fit[:400], 0.1)):
        factor = spread * root
        g = Generator().manual_seed(11)
        pick = torch.randint(len(centre), (len(held),), generator=g)
        proposed = centre[pick] + torch.randn(held.shape, generator=g, dtype=x.dtype) @ factor.T
        sides = [log_f(s) - _log_kernel(s, centre, factor) for s in (proposed, held)]
        with warnings.catch_warnings():  # of sides that do not meet: their error bar says so
            warnings.simplefilter("ignore")
            estimates.append(bar(*sides))
    return min(estimates, key=lambda e: e.se if e.se == e.se else math.inf)


def _on_subspace(target: Target, log_f: Function, x: Tensor) -> tuple[Function, Tensor]:
    """log_f and x in an orthonormal basis of the subspace of the target."""
    if target.rank == target.dim:
        return log_f, x
    columns = target.project(torch.eye(target.dim, dtype=x.dtype))
    basis = torch.linalg.svd(columns).U[:, : target.rank]
    return lambda y: log_f(y @ basis.T), x @ basis


def _log_kernel(x: Tensor, centre: Tensor, factor: Tensor) -> Tensor:
    """log of the mean over centres c of N(x; c, factor factor^T)."""
    a = torch.linalg.solve_triangular(factor, x.T, upper=False).T
    c = torch.linalg.solve_triangular(factor, centre.T, upper=False).T
    near = (-torch.cdist(a, c).square() / 2).logsumexp(-1) - math.log(len(centre))
    return near - factor.diagonal().log().sum() - x.shape[-1] / 2 * math.log(2 * math.pi)


def against_gaussians(target: Target) -> Iterator[Finding]:
    """log Z without the exact draws, which may miss what the truth misses too."""
    truth, log_f = target.truth(), log_integrand(target)
    if truth.log_Z is None or log_f is None or target.dim > LOW:
        return
    if target.rank < target.dim:
        return  # these Gaussians fill R^dim
    log_w = _proposed(target, log_f)
    if truth.sample is not None:
        # A part of the target too narrow for the proposal shows in the exact draws: there the
        # weight of one point would be a hundredth of Z or more.
        draws = truth.sample(int(min(N, truth.held)), Generator().manual_seed(5))
        log_w_there = log_f(draws) - _log_wide(draws, target.scale)
        if float(log_w_there.max()) - truth.log_Z > math.log(PROPOSED / 100):
            return
    w = average((log_w - log_w.max()).exp())
    if not 0 < w.se < 0.05 * w.value:
        return
    estimate = Estimate(math.log(w.value) + float(log_w.max()), w.se / w.value, w.n)
    hint, remedy = _likeness(truth.log_Z, estimate)
    yield expect(
        agrees(estimate, truth.log_Z, truth.log_Z_se),
        f"log Z from Gaussians around 0 is {format_estimate(estimate)} for {truth.log_Z:.6g}",
        f"log Z is {format_estimate(estimate)} by estimation from Gaussians around 0, "
        f"the truth says {truth.log_Z:.6g}{hint}",
        f"{remedy}; if it is right, draws miss a part of the density, or scale is not the rms "
        "coordinate",
    )


def _proposed(target: Target, log_f: Function) -> Tensor:
    """log_f less the log density of an equal mixture of Gaussians, at points drawn from it."""
    g = Generator().manual_seed(13)
    xi = torch.randn(PROPOSED, target.dim, generator=g, dtype=torch.float64)
    width = torch.tensor(WIDTHS, dtype=xi.dtype)[torch.arange(PROPOSED) % len(WIDTHS)]
    x = target.scale * width[:, None] * xi
    log_p = torch.cat([log_f(part) for part in x.split(10_000)])
    return log_p - _log_wide(x, target.scale)


def _log_wide(x: Tensor, scale: float) -> Tensor:
    """log of the mean over WIDTHS of N(x; 0, (scale width)^2 I)."""
    d, square = x.shape[-1], x.square().sum(-1)
    logs = [
        -square / (2 * (scale * w) ** 2) - d * math.log(scale * w * math.sqrt(2 * math.pi))
        for w in WIDTHS
    ]
    return torch.stack(logs).logsumexp(0) - math.log(len(WIDTHS))


def _from_base(target: Tilt) -> Estimate:
    """The log of the mean of exp(r) over the base: exact draws of it, or uncontrolled paths."""
    g, shape = Generator().manual_seed(11), (N, target.dim)
    with torch.no_grad():
        base = target.base
        if isinstance(base, Known):
            x = base.end(shape, g)
        else:
            x = simulate(base, Uncontrolled(), shape, g).x[-1]
        r = target.reward(x).double()
    return _log_mean_exp(r)


def _log_mean_exp(r: Tensor) -> Estimate:
    w = average(torch.exp(r - r.max()))
    return Estimate(math.log(w.value) + float(r.max()), w.se / w.value, w.n)


def along(target: Target) -> Iterator[Finding]:
    """log_Z_along against the noised draws of a base that has exact ones."""
    log_Z_along = target.truth().log_Z_along
    if log_Z_along is None or not isinstance(target, Tilt) or not isinstance(target.base, Known):
        return
    g = Generator().manual_seed(17)
    x1 = target.base.end((N, target.dim), g, torch.float64)
    for signal, noise, strength in ((1.0, 0.0, 0.0), (1.0, 0.0, 1.0), (0.6, 0.5, 0.5)):
        xi = torch.randn(x1.shape, generator=g, dtype=x1.dtype)
        estimate = _log_mean_exp(strength * target.reward(signal * x1 + noise * xi))
        known = log_Z_along(signal, noise, strength)
        term = f"log_Z_along({signal:g}, {noise:g}, {strength:g})"
        yield expect(
            agrees(estimate, known),
            f"{term} is {known:.6g}, estimated {format_estimate(estimate)}",
            f"{term} is {format_estimate(estimate)} by estimation, the truth says {known:.6g}",
            "it is log E exp(strength r(signal X + noise xi)), X a draw of the base",
        )
