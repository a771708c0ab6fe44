"""Policy gradients, forward-process losses and preferences: where each ends, and what it equals."""

import math
from dataclasses import replace

import pytest
import torch

from tests.tools.worlds import Mixture, Shifted, rng, z_score
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.loss import Loss, batch_path, path_batch
from tiltbench.samplers.losses._forward_process import control
from tiltbench.samplers.losses._matching import POINTS
from tiltbench.samplers.losses._policy_gradient import clipped, standardised
from tiltbench.samplers.losses.diffusion_dpo import preferences
from tiltbench.samplers.losses.diffusion_nft import both
from tiltbench.samplers.losses.log_variance import log_variance
from tiltbench.samplers.losses.reward_weighted_regression import Rounds
from tiltbench.samplers.losses.trajectory_balance import trajectory_balance
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Earlier, Model
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.studies.policy_gradient.fixed_points import (
    Reward,
    end,
    fixed_states,
    in_reward,
    tilt,
)
from tiltbench.studies.policy_gradient.fixed_points import (
    standardised as temperature,
)
from tiltbench.targets.bases.interpolant import Converted
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.process import along, simulate
from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

BASE = Stationary(steps=8)


def loss_of(text) -> Loss:
    return build_sampler(parse(text)).loss


class Along(Control):
    """theta of the way from 0 to a control u(x, k) of steps k, and further."""

    guided = False

    def __init__(self, u, base=BASE, theta=1.0):
        super().__init__()
        self.u, self.base = u, base
        self.theta = torch.nn.Parameter(torch.tensor(float(theta)))

    def control(self, x, t, hint=None):
        k = (t * self.base.steps).round().long().expand(x.shape[:-1])
        return self.theta * self.u(x.detach(), k)


class Beside(Along):
    """u(x, k) + theta (0.5 + sin x)."""

    def control(self, x, t, hint=None):
        k = (t * self.base.steps).round().long().expand(x.shape[:-1])
        return self.u(x.detach(), k) + self.theta * (0.5 + torch.sin(x.detach()))


def slopes(loss, problem, net, seeds, paths):
    """Independent estimates of d loss / d theta."""
    model, sampler, per_seed = Model(net), Diffusion(loss, paths=paths), []
    for seed in seeds:
        batch = sampler.batch(problem, model, 0.5, rng(seed))
        value = loss.value(model, problem.base, batch, rng(seed + 1000))
        per_seed.append(torch.autograd.grad(value, net.theta)[0].double())
    return torch.stack(per_seed)


# --- where they end ------------------------------------------------------------------------------

SPREAD = math.hypot(0.6, 0.3) * BASE.spread  # the standard deviation of r = c . x under any tilt
WITHIN = math.erf(1 / math.sqrt(2))  # P(|A| < 1) of a normal A: what cutting at 1 leaves of Cov


def group_factor(group: int) -> float:
    """What advantages over the standard deviation of a group of normal rewards shrink a gradient
    by: E[S] / s of a population's S over `group` draws, sqrt(2 / group) Gamma(group / 2) /
    Gamma((group - 1) / 2)."""
    log_ratio = math.lgamma(group / 2) - math.lgamma((group - 1) / 2)
    return math.sqrt(2 / group) * math.exp(log_ratio)


ENDS = {  # a linear reward: the share of u* at which the gradient vanishes, on any grid
    "reinforce[kl=2]": 1 / 2,
    "ddpo[kl=2]": 1 / 2,
    "flow_grpo[kl=2,group=16]": 1 / 2,
    "diffusion_dpo[kl=2]": 1 / 2,
    "dpok[kl=2]": 1 / 2,
    "ddpo_published[kl=2]": 1 / (2 * SPREAD),
    "flow_grpo_published[kl=2,group=16]": group_factor(16) / (2 * SPREAD),
    "flow_grpo_published[kl=2,group=2]": group_factor(2) / (2 * SPREAD),
    "advantage_weighted_matching_published[kl=2,group=16]": group_factor(16) / (2 * SPREAD),
    "diffusion_nft_published[kl=2,group=512]": WITHIN / (2 * SPREAD),
    "diffusion_nft_published[kl=2,group=512,strength=3]": 3 * WITHIN / (2 * SPREAD),
}


@pytest.mark.parametrize("text", ENDS)
def test_the_end_for_a_linear_reward(text):
    """r = c . x on a Gaussian base: u = theta u* at the stated theta, and neither more nor less."""
    world, loss, share = Shifted(BASE), loss_of(text), ENDS[text]
    assert loss.biased

    def best(x, k):
        return BASE.pull(k, world.slope.to(x).expand_as(x))

    at, more, less = (
        slopes(loss, world.problem(), Along(best, theta=theta), range(24), 512)
        for theta in (share, share + 0.3, share - 0.3)
    )
    assert abs(z_score(at, 0)) < 4
    assert z_score(more, 0) > 4 and -z_score(less, 0) > 4


REWARD = Reward(linear=1.5, curvature=4.0)
LINE = Brownian(steps=8)  # memoryless, at any number of steps


def quadratic():
    return Problem(2, LINE, lambda x: (REWARD.linear * x - REWARD.curvature / 2 * x * x).sum(-1))


def affine(u):
    shift, pull = (torch.tensor(row) for row in u)
    return lambda x, k: shift.to(x)[k][..., None] - pull.to(x)[k][..., None] * x


def fixed_at(kl):
    return fixed_states(LINE, REWARD, kl)


@pytest.mark.parametrize(
    ("text", "u", "other"),
    [
        ("reinforce", in_reward(LINE, REWARD, 1.0), fixed_at(1.0)),
        ("dpok", fixed_at(1.0), in_reward(LINE, REWARD, 1.0)),
        (
            "ddpo_published[kl=1]",
            fixed_at(temperature(LINE, REWARD, 1.0, fixed_states, 2)),
            fixed_at(1.0),
        ),
    ],
    ids=["in the reward", "at fixed states", "standardised"],
)
def test_the_end_for_a_quadratic_reward(text, u, other):
    """The KL at fixed states has another end than the KL in the reward, and standardised rewards
    another temperature: stationary at the closed form, and not at the other."""
    loss = loss_of(text)
    at, off = (
        slopes(loss, quadratic(), Beside(affine(control), LINE, 0.0), range(32), 1024)
        for control in (u, other)
    )
    assert abs(z_score(at, 0)) < 4 < abs(z_score(off, 0))


def test_the_kl_in_the_reward_ends_in_the_tilt_and_that_at_fixed_states_does_not():
    """As dt -> 0, and for a linear reward both do on any grid."""
    flat = Reward(0.8, 0.0)
    for of in (in_reward, fixed_states):
        assert end(LINE, of(LINE, flat, 2.0)) == pytest.approx(tuple(tilt(LINE, flat, 2.0)))
    off = {in_reward: [], fixed_states: []}
    for of, errors in off.items():
        for steps in (100, 200):
            base = Brownian(steps=steps)
            wanted = tilt(base, REWARD, 1.0)
            errors.append(end(base, of(base, REWARD, 1.0)).variance / wanted.variance - 1)
    assert off[in_reward][1] < 0.05
    assert off[in_reward][0] / off[in_reward][1] == pytest.approx(2, rel=0.2)
    assert off[fixed_states][1] > 0.2


def test_a_kl_at_fixed_states_ends_at_half_of_the_control_of_twice_the_reward():
    """As dt -> 0, the difference of order dt."""
    off = []
    for steps in (50, 100, 200):
        base = Brownian(steps=steps)
        optimum = fixed_states(base, REWARD, 1.3)
        twice = in_reward(base, Reward(2 * REWARD.linear, 2 * REWARD.curvature), 1.3)
        rows = [
            (a, b / 2) for one, two in zip(optimum, twice, strict=True) for a, b in zip(one, two)
        ]
        off.append(max(abs(a - b) for a, b in rows) / max(abs(b) for _, b in rows))
    assert off[2] < 0.1 and off[0] / off[1] == pytest.approx(2, rel=0.3)
    assert off[1] / off[2] == pytest.approx(2, rel=0.3)


def test_standardised_rewards_have_the_temperature_of_the_law_they_reach():
    """kl s with s the standard deviation there; of a linear reward |c| spread under every tilt.  A
    small weight lets it fall, to that of the last step's noise."""
    flat = Reward(0.8, 0.0)
    assert temperature(LINE, flat, 0.5, in_reward) == pytest.approx(0.5 * 0.8 * LINE.spread)
    kl = temperature(LINE, REWARD, 1.5, in_reward, 2)
    law, source = end(LINE, in_reward(LINE, REWARD, kl)), rng(3)
    x = law.mean + math.sqrt(law.variance) * torch.randn(200_000, 2, generator=source)
    r = (REWARD.linear * x - REWARD.curvature / 2 * x * x).sum(-1)
    assert kl == pytest.approx(1.5 * float(r.std()), rel=0.01)
    for dim, least in ((2, 1.0), (8, 0.5)):  # sqrt(2 / dim)
        fine = Brownian(steps=400)
        below, above = (
            temperature(fine, REWARD, weight * least, in_reward, dim) for weight in (0.7, 1.4)
        )
        assert below < 0.05 * above


class Scaled(Control):
    """(1 + theta_k) u*_k at every step k by itself."""

    guided = False

    def __init__(self, world):
        super().__init__()
        self.world, self.theta = world, torch.nn.Parameter(torch.zeros(world.base.steps))

    def control(self, x, t, hint=None):
        k = (t * self.world.base.steps).round().long().expand(x.shape[:-1])
        return self.world.control(x.detach(), t) * (1 + self.theta[k][..., None])


def test_the_bound_of_diffusion_dpo_has_another_end():
    """At u* its gradient pulls early times on and late ones back (math.md 3.1), where that of the
    loss on paths is 0; and it knows no size of the reward, only its order."""
    world = Shifted(BASE)
    model, scores = Model(Scaled(world)), {}
    for name in ("diffusion_dpo", "diffusion_dpo_published"):
        loss, sampler, rows = loss_of(name), Diffusion(loss_of(name), paths=128), []
        for seed in range(24):
            batch = sampler.batch(world.problem(), model, 0.5, rng(seed))
            value = loss.value(model, BASE, batch, rng())
            rows.append(torch.autograd.grad(value, model.network.theta)[0].double())
        rows = torch.stack(rows)
        scores[name] = rows.mean(0) / (rows.std(0) / math.sqrt(len(rows)))
    assert scores["diffusion_dpo"].abs().max() < 4
    assert (
        scores["diffusion_dpo_published"].max() > 6 and scores["diffusion_dpo_published"].min() < -6
    )
    sampler = Diffusion(loss_of("diffusion_dpo_published"), paths=64)
    once, thrice = (
        sampler.batch(
            Problem(2, BASE, lambda x, c=c: c * world.problem().reward(x)), model, 0, rng()
        )
        for c in (1.0, 3.0)
    )
    assert all(torch.equal(once[key], thrice[key]) for key in once)


def test_rounds_of_reward_weighted_regression_climb_to_the_tilt():
    """Equal parts of the training, equal exponents; the frozen control goes with them."""
    rounds = Rounds(rounds=4)
    assert [rounds.goal(s) for s in (0, 0.24, 0.26, 0.6, 0.99, 1)] == [0.25, 0.25, 0.5, 0.75, 1, 1]
    loss, problem = rounds.loss(), Shifted(BASE).problem()
    model, sampler = Mlp(width=8).build(2, BASE, rng()), Diffusion(loss, paths=8)
    assert loss.behaviour(model) is model
    for share, tilts in ((0.0, (0.0, 0.25)), (0.3, (0.25, 0.5)), (0.4, (0.25, 0.5))):
        sampler.batch(problem, model, share, rng())
        assert (model.earlier.tilt, model.earlier.goal) == tilts
        assert loss.behaviour(model) is model.earlier.model


@pytest.mark.parametrize("h", [0.25, 1.0])
def test_a_round_weighs_by_its_own_part_of_the_reward(h):
    loss, problem = loss_of("reward_weighted_regression"), Shifted(BASE).problem()
    model = Mlp(width=8).build(2, BASE, rng())
    model.earlier = Earlier(model.frozen(), 1 - h, 1.0)
    path = simulate(BASE, model, (32, 2), rng(1))
    batch = loss.label(problem, model, path, 1.0, rng(2))
    weight = (h * problem.reward(path.x[-1])).exp()
    torch.testing.assert_close(batch["weight"], (weight / weight.mean()).repeat(POINTS))


# --- what they equal -----------------------------------------------------------------------------


def bought(loss, paths=64, seed=3):
    """A model off the optimum, a problem with modes, and a batch."""
    world = Mixture(Stationary(steps=8, scale=2.0))
    problem, model = world.problem(), Mlp(width=16).build(2, world.base, rng(1))
    torch.nn.init.normal_(model.network.field.out.weight, std=0.3, generator=rng(2))
    return model, problem, Diffusion(loss, paths=paths).batch(problem, model, 0.5, rng(seed))


def gradient(loss, model, problem, batch):
    value = loss.value(model, problem.base, batch, rng(9))
    grads = torch.autograd.grad(value, list(model.network.parameters()))
    return torch.cat([g.flatten().double() for g in grads])


def test_reinforce_is_half_of_log_variance():
    """Leave-one-out REINFORCE with the path KL is VarGrad (arXiv 2010.10436), on kept paths too."""
    loss = loss_of("reinforce")
    model, problem, batch = bought(loss)
    for _ in range(2):
        a, b = (gradient(each, model, problem, batch) for each in (loss, log_variance))
        torch.testing.assert_close(2 * a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
        torch.nn.init.normal_(model.network.field.out.weight, std=0.3, generator=rng(4))


def test_clipped_objectives_begin_as_reinforce():
    """At the control that drew the batch, where all ratios are 1; of advantages of one scale."""
    model, problem, batch = bought(loss_of("ddpo"))
    path = batch_path(problem.base, batch)
    log_w = problem.reward(path.x[-1]).double() - problem.base.log_ratio(path)
    assert float(log_w.std()) > 1
    plain = gradient(
        loss_of("reinforce"), model, problem, {**batch, "r": problem.reward(path.x[-1])}
    )
    for text in ("ddpo", "flow_grpo[group=64]"):
        loss = loss_of(text)
        batch = loss.label(problem, model, path, 0.5, rng())
        slope = gradient(loss, model, problem, batch)
        direction = torch.nn.functional.cosine_similarity(slope, plain, dim=0)
        assert float(direction) == pytest.approx(1, abs=1e-4)


def test_clipping_stops_where_a_ratio_has_gone_far_enough():
    log_ratio = torch.tensor([0.0, 0.15, 0.25, -0.25, 500.0], requires_grad=True)
    for sign, passes in ((1.0, [1, 1, 0, 1, 0]), (-1.0, [1, 1, 1, 0, 0])):
        value = clipped(log_ratio, torch.full((5,), sign), 0.2)
        (slope,) = torch.autograd.grad(value.sum(), log_ratio)
        assert (slope != 0).tolist() == [bool(k) for k in passes]
        assert value.isfinite().all()


def test_advantages_are_relative_to_their_group():
    score = torch.randn(50, generator=rng(), dtype=torch.float64) + torch.arange(50) // 25 * 100
    advantages = standardised(score, 25).reshape(2, 25)
    assert advantages.mean(1).abs().max() < 1e-9
    torch.testing.assert_close(
        advantages.std(1, correction=0), torch.ones(2).double(), rtol=1e-3, atol=0
    )
    assert standardised(score, 80).std(correction=0) == pytest.approx(1, rel=1e-3)  # one group
    odd = standardised(score[:49], 16)  # three groups of 16 or 17
    assert odd[:17].mean().abs() < 1e-9 and odd[33:].mean().abs() < 1e-9
    assert standardised(torch.full((8,), 3.0), 4).abs().max() == 0


def test_nft_is_a_regression_on_a_displaced_target():
    """b^2 |u - u_old - (2 q - 1) / b (steer - u_old)|^2 but for a constant, point by point."""
    u, old, steer = torch.randn(3, 40, 2, generator=rng(), dtype=torch.float64)
    q = torch.rand(40, generator=rng(1), dtype=torch.float64)
    batch = {"u": old, "steer": steer, "weight": q}

    def regression(u, b):
        goal = old + ((2 * q - 1) / b)[:, None] * (steer - old)
        return b * b * (u - goal).square().sum(-1)

    for b in (0.5, 1.0, 3.0):
        gap = [both(at, batch, b) - regression(at, b) for at in (u, old, 0 * u)]
        torch.testing.assert_close(gap[0], gap[1])
        torch.testing.assert_close(gap[0], gap[2])


def test_the_forward_process_losses_begin_alike():
    """Of equal weights A the gradients at u = u_old are those of A |u - steer|^2 / 2: that of
    advantage-weighted matching itself, that of NFT times 2 b."""
    model, problem, batch = bought(loss_of("advantage_weighted_matching"))
    A = batch["weight"] / batch["weight"].abs().max()
    off = (control(model, problem.base, batch) - batch["steer"]).square().sum(-1)
    parameters = list(model.network.parameters())
    plain = torch.autograd.grad((A * off).mean() / 2, parameters)
    rows = {
        "advantage_weighted_matching[match=0]": ({**batch, "weight": A}, 1.0),
        "diffusion_nft": ({**batch, "weight": (1 + A) / 2}, 2.0),
        "diffusion_nft[strength=3]": ({**batch, "weight": (1 + A) / 2}, 6.0),
    }
    for text, (given, factor) in rows.items():
        slopes = torch.autograd.grad(
            loss_of(text).value(model, problem.base, given, rng()), parameters
        )
        for a, b in zip(slopes, plain, strict=True):
            torch.testing.assert_close(a, factor * b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_a_match_is_a_weight_that_all_paths_share():
    """`match` adds the gradient of match |u - steer|^2 / 2 to the one, and match to the 2 q - 1 of
    the other."""
    model, problem, batch = bought(loss_of("advantage_weighted_matching"))
    off = (control(model, problem.base, batch) - batch["steer"]).square().sum(-1)
    parameters = list(model.network.parameters())
    plain = torch.autograd.grad(off.mean() / 2, parameters)
    with_, without = (
        torch.autograd.grad(loss_of(t).value(model, problem.base, batch, rng()), parameters)
        for t in ("advantage_weighted_matching[match=0.3]", "advantage_weighted_matching[match=0]")
    )
    for a, b, c in zip(with_, without, plain, strict=True):
        torch.testing.assert_close(a - b, 0.3 * c, rtol=1e-3, atol=1e-4 * float(c.abs().max()))
    weights = [bought(loss_of(f"diffusion_nft[match={m}]"))[2]["weight"] for m in (0.0, 0.6)]
    torch.testing.assert_close(weights[1] - weights[0], torch.full_like(weights[0], 0.3))


def test_preferences_are_those_of_bradley_and_terry():
    """Every pair meets once; i beats j with probability sigmoid(r_i - r_j)."""
    r = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    rows = torch.stack([preferences(r, rng(seed)) for seed in range(4000)])
    met = rows + rows.transpose(1, 2)
    assert torch.equal(met, (1 - torch.eye(3)).double().expand_as(met))
    for i, j in ((1, 0), (2, 0), (2, 1)):
        assert abs(z_score(rows[:, i, j], float(torch.sigmoid(r[i] - r[j])))) < 4


def test_diffusion_dpo_knows_of_the_reward_who_won():
    """A batch that forgets r has the gradient of one that does not."""
    loss = loss_of("diffusion_dpo")
    model, problem, batch = bought(loss)
    blind = {**batch, "r": torch.zeros_like(batch["r"])}
    assert torch.equal(*(gradient(loss, model, problem, each) for each in (batch, blind)))


def test_relative_trajectory_balance_is_trajectory_balance():
    """(log Z + log P_u(path) - log P_base(path) - r)^2 (arXiv 2405.20971), by the densities of the
    two chains themselves, on paths of a pretrained base; and so the sampler is the same."""
    target = build_target(parse("tilt_quadratic[steps=6]"))
    base = target.base
    model = Mlp(width=16).build(2, base, rng(1))
    torch.nn.init.normal_(model.network.field.out.weight, std=0.3, generator=rng(2))
    with torch.no_grad():
        model.log_Z.fill_(-1.1)
    path = simulate(base, model, (32, 2), rng(3))
    u, total = along(model, path), model.log_Z - target.reward(path.x[-1]).double()
    for k in range(base.steps):
        mean, std = base.base(path.x[k], k)
        prior, tuned = (
            torch.distributions.Normal(m.double(), std).log_prob(path.x[k + 1].double()).sum(-1)
            for m in (mean, mean + std * path.dt[k].sqrt() * u[k])
        )
        total = total + tuned - prior
    batch = path_batch(path, target.reward(path.x[-1]))
    value = trajectory_balance.value(model, base, batch, rng())
    torch.testing.assert_close(value, total.square().mean(), rtol=1e-4, atol=1e-4)
    named = (SAMPLERS.load(name) for name in ("relative_trajectory_balance", "trajectory_balance"))
    assert next(named).sampler == Diffusion(next(named))


# --- how they are used ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flow_grpo[group=1]", "group is 1; advantages compare the paths of a group"),
        ("diffusion_nft_published[group=1]", "group is 1"),
        ("ddpo[clip_range=0]", "clip_range is 0.0; ratios are kept within 1 -\\+ clip_range"),
        ("flow_grpo_published[clip_range=2]", "clip_range is 2"),
        ("advantage_weighted_matching[clip_range=0]", "clip_range is 0"),
        ("reinforce[kl=-1]", "kl is -1.0; it is the weight of the KL to the base: 0 or more"),
        ("dpok[kl=-1]", "kl is -1"),
        ("flow_grpo_published[kl=-0.1]", "kl is -0.1"),
        ("diffusion_dpo[kl=0]", "kl is 0.0; it is the weight of the KL to the base: above 0"),
        ("diffusion_nft[match=2]", "match is 2.0; it must be from 0 to 1"),
        ("diffusion_nft[strength=0]", "strength is 0.0; it must be positive and finite"),
        ("reward_weighted_regression[rounds=0]", "rounds is 0; it must be 1 or more"),
        ("ddpo[explore=Wider]", "ddpo is right for the model's own paths only"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(text, message):
    with pytest.raises(ValueError, match=message):
        build_sampler(parse(text))


NAMES = [
    name
    for name, entry in SAMPLERS.entries.items()
    if entry.path.stem
    in (
        "reinforce",
        "ddpo",
        "flow_grpo",
        "diffusion_nft",
        "advantage_weighted_matching",
        "reward_weighted_regression",
        "diffusion_dpo",
    )
]


@pytest.mark.parametrize("name", NAMES)
def test_each_runs_on_digits(name):
    """A step with a trainable copy of the network; what it pays is a value a path."""
    target = build_target(parse("digits_class"))
    sampler = replace(build_sampler(parse(f"{name}[model=Adapter]")), paths=4, repeats=1)
    problem = Problem(target.dim, replace(target.base, steps=3), target.reward)
    state = sampler.init(problem, Cost(100, 0), rng())
    before = [p.clone() for p in state.model.control_parameters()]
    state = sampler.step(problem, state, rng(1))
    assert state.paid == Cost(4, 0) and float(state.loss.isfinite())
    moved = zip(before, state.model.control_parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)
    assert sampler.draw(problem, state, 3, rng(2)).x.shape == (3, 64)


def test_a_converted_flow_has_the_marginals_of_its_ode():
    """N(0.7, 0.4) by the SDE of Flow-GRPO; corr(X_0, X_1) of order h^(level^2 / 2)."""
    for level in (0.7, math.sqrt(2)):
        base = MixtureFlow(
            (1.0,), ((0.7, 0.7),), (0.4,), stepping=Converted(level, 0.005), steps=200
        )
        with torch.no_grad():
            x = simulate(base, Model(Along(lambda x, k: 0 * x, base)), (4000, 2), rng(5)).x
        assert abs(z_score(x[-1].flatten(), 0.7)) < 4
        assert float(x[-1].var(0).mean()) == pytest.approx(0.4, rel=0.05)
        seen = torch.corrcoef(torch.stack([x[0, :, 0], x[-1, :, 0]]))[0, 1]
        assert float(seen) == pytest.approx(base.memory, abs=0.06)
    few, many = (
        MixtureFlow((1.0,), ((0.0, 0.0),), (1.0,), stepping=Converted(h=h)).memory
        for h in (0.02, 0.002)
    )
    assert many / few == pytest.approx(10 ** (-(0.7**2) / 2), rel=0.1)
    assert Converted(level=0.7).sigma(0.25) == pytest.approx(0.7 * math.sqrt(3))
    assert Converted(level=0.7, h=0.04).sigma(0.0) == pytest.approx(0.7 / math.sqrt(0.04))
    with pytest.raises(ValueError, match="level is 0; it must be positive and finite"):
        Converted(level=0)
