"""The digits base: data, checkpoints, what they are worth, and the tilts that stand on them."""

import copy
import json
import math

import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_target, parse
from tiltbench.pretrain.quality import quality, sheet
from tiltbench.pretrain.train import store, train_field
from tiltbench.samplers.networks.adapter import Adapter
from tiltbench.samplers.redraw import by_ode
from tiltbench.targets.bases import checkpoint as stored
from tiltbench.targets.bases.pretrained import doubts
from tiltbench.targets.bases.process import Uncontrolled, retrace, simulate
from tiltbench.targets.digits import pool as digits_pool
from tiltbench.targets.digits.digits import (
    DDPM,
    DIM,
    FLOW,
    SPREAD,
    digits,
    images,
    log_classes,
    split,
)

kinds = pytest.mark.parametrize("kind", [FLOW, DDPM], ids=["flow", "ddpm"])


def test_images_are_grey_levels_and_parted():
    x, digit = images(torch.empty(0))
    train, held_out = split(torch.empty(0))
    assert x.shape == (1797, DIM) and float(x.min()) == -1 and float(x.max()) == 1
    assert torch.equal((x + 1) * 8, ((x + 1) * 8).round())
    assert torch.bincount(digit).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(train.x) + len(held_out.x) == 1797
    assert torch.cdist(train.x, held_out.x).min() > 0.1  # no image in both
    assert float(x.square().mean().sqrt()) == pytest.approx(SPREAD, abs=0.005)


@kinds
def test_the_base_draws_digits(kind):
    """By the noisy chain and by the ODE: as near to the images held out as 1.5 % of the distance
    between two of them, seen as digits nearly as surely as these, each digit there, no copies."""
    base = digits(kind.schedule)
    held_out = split(torch.empty(0, dtype=torch.float64))[1]
    apart = float(torch.cdist(held_out.x, held_out.x).mean())
    real = quality(held_out.x)
    with torch.no_grad():
        noisy = simulate(base, Uncontrolled(), (300, DIM), rng(1)).x[-1]
    for x in (noisy, by_ode(base, Uncontrolled(), (300, DIM), rng(2)).x):
        measured = quality(x)
        assert measured.energy_distance < 0.015 * apart
        assert measured.confidence > real.confidence - 0.1
        assert min(measured.shares) > 0.04
        assert measured.nearest > 0.8 * real.nearest


@kinds
def test_doubt_is_that_of_the_network_on_images_held_out(kind):
    base, held_out = digits(kind.schedule), split(torch.empty(0))[1]
    pairs = doubts(base.network, kind.reading, kind.schedule, held_out.x, rng(3), 10)
    for (_, tau), (t, stored_tau) in zip(pairs, base.doubt[::10], strict=True):
        assert tau == pytest.approx(stored_tau, rel=0.05), t


def test_the_classifier_knows_images_held_out():
    held_out = split(torch.empty(0))[1]
    assert (log_classes(held_out.x).argmax(-1) == held_out.digit).double().mean() > 0.985
    assert torch.allclose(log_classes(held_out.x.double()).exp().sum(-1), torch.ones(359).double())


def test_rewards_are_log_probabilities():
    x = split(torch.empty(0, dtype=torch.float64))[1].x
    classes = torch.stack(
        [build_target(parse(f"digits_class[digit={k}]")).reward(x) for k in range(10)], -1
    )
    assert torch.allclose(classes.exp().sum(-1), torch.ones(len(x), dtype=x.dtype))
    even = build_target(parse("digits_even[strength=3]")).reward(x)
    assert torch.allclose(even / 3, classes[:, ::2].logsumexp(-1))
    for text in ("digits_class[digit=10]", "digits_even[strength=0]", "digits_class[strength=-1]"):
        with pytest.raises(BadSpec, match="must be"):
            build_target(parse(text))
    with pytest.raises(BadSpec, match="no network for digits was trained on Trigonometric"):
        build_target(parse("digits_even[schedule=Trigonometric]"))


def test_super_resolution_is_the_likelihood_of_what_was_seen():
    held_out, noises = split(torch.empty(0, dtype=torch.float64))[1].x, []
    for i in range(40):
        target = build_target(parse(f"digits_superresolution[image={i},noise=0.5]"))
        blocks = held_out[i].reshape(4, 2, 4, 2).mean((1, 3)).flatten()
        law = torch.distributions.Normal(blocks, 0.5)
        assert float(target.reward(held_out[i])) == pytest.approx(
            float(law.log_prob(target.y).sum())
        )
        noises.append((target.y - blocks) / 0.5)
    xi = torch.stack(noises)
    assert abs(float(xi.square().mean()) - 1) < 3 * (2 / xi.numel()) ** 0.5
    assert (xi @ xi.T / 16 - torch.eye(40)).abs().max() < 1.5  # each image has noise of its own
    for text in ("digits_superresolution[image=359]", "digits_superresolution[noise=0]"):
        with pytest.raises(BadSpec, match="must be"):
            build_target(parse(text))


def test_the_pool_is_of_the_flow_that_ships():
    note = json.loads((stored.DATA / f"{digits_pool.STORED}.json").read_text())
    assert note["of"] == stored.checkpoint(FLOW.stored).note["sha256"]
    x = digits_pool.draws(torch.empty(0))
    assert x.shape == (digits_pool.COUNT, DIM)
    with torch.no_grad():
        again = simulate(digits(), Uncontrolled(), (digits_pool.AT_ONCE, DIM), rng(3)).x[-1]
    assert (
        again - x[: digits_pool.AT_ONCE]
    ).abs().max() < 0.01  # float16, and another processor's sums
    assert build_target(parse("digits_even[steps=20]")).truth().log_Z is None


def test_truth_of_a_tilted_gaussian_pool(monkeypatch):
    """N(0, I) by exp(a . x) is N(a, I), Z = exp(|a|^2 / 2) and E w^2 / Z^2 = exp |a|^2."""
    pool, a = torch.randn(40_000, DIM, generator=rng(0)), torch.zeros(DIM)
    a[0], a[1] = 0.6, -0.8
    monkeypatch.setattr(digits_pool, "draws", lambda like: pool.to(like))
    monkeypatch.setattr(digits_pool, "STATISTICS", {"first": lambda x: x[:, 0]})
    monkeypatch.setattr(digits_pool, "_seen", lambda: (pool[:, 0] > 0).long())
    truth = digits_pool.tilted(lambda x: x @ a.to(x))
    assert truth.log_Z_se == pytest.approx(((math.e - 1) / len(pool)) ** 0.5, rel=0.1)
    assert abs(truth.log_Z - 0.5) < 3 * truth.log_Z_se
    first = truth.observables["first"]
    assert abs(first.mean - 0.6) < 3 * first.se and first.sd == pytest.approx(1, abs=0.03)
    # Var = E_p* [(w / Z) (x - a)^2] / n, x ~ N(2 a, I) under p* w / Z
    assert first.se == pytest.approx((math.e * 1.36 / len(pool)) ** 0.5, rel=0.15)
    assert float(truth.modes.weight[1]) == pytest.approx(0.7257, abs=0.02)
    x = truth.sample(int(truth.held), rng(1))
    assert x.dtype == torch.float64 and len(x.unique(dim=0)) == len(x) > 500
    assert ((x.mean(0) - a.double()) * len(x) ** 0.5).abs().max() < 4
    assert ((x.var(0) - 1) * (len(x) / 2) ** 0.5).abs().max() < 4
    with pytest.raises(ValueError, match="ask for no more"):
        truth.sample(int(truth.held) + 1, rng(1))


def test_a_changed_checkpoint_is_refused(tmp_path, monkeypatch):
    network = train_field(FLOW, 2)
    path = store(network, tmp_path, "made", {"width": 1})
    again = store(train_field(FLOW, 2), tmp_path / "again", "made", {"width": 1})
    assert path.read_bytes() == again.read_bytes()  # the same bytes twice
    monkeypatch.setattr(stored, "DATA", tmp_path)
    tensors, note = stored.checkpoint("made")
    assert note["width"] == 1
    assert all(torch.equal(tensors[key], v) for key, v in network.state_dict().items())
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="restore it"):
        stored.checkpoint("made")


def test_a_sheet_is_a_picture_of_the_images(tmp_path):
    import matplotlib.image

    x = images(torch.empty(0)).x[:45]
    sheet(x, tmp_path / "a.png", columns=20, zoom=2)
    sheet(x, tmp_path / "b.png", columns=20, zoom=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    shown = matplotlib.image.imread(tmp_path / "a.png")[..., 0]
    assert shown.shape == (2 * 20, 20 * 20)  # 5 images are no full row
    assert float(shown[2 + 20 : 18 + 20 : 2, 22:38:2].mean()) == pytest.approx(
        float((1 - x[21].mean()) / 2), abs=0.01
    )


@pytest.mark.slow
def test_the_command_trains_and_measures(tmp_path, capsys):
    from tiltbench.cli.main import main

    for kind in ("flow", "ddpm", "classifier"):
        assert main(["base", "digits", "--kind", kind, "--steps", "5", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "| images held out |" in output and "classified rightly" in output
    assert len(list(tmp_path.glob("*.safetensors"))) == 3 and len(list(tmp_path.glob("*.png"))) == 2
    note = json.loads((tmp_path / "digits_ddpm.json").read_text())
    assert len(note["doubt"]) == 101 and "--kind ddpm" in note["command"]
    assert main(["base", "digits", "--out", str(tmp_path / "digits_flow.png")]) == 2


def test_a_field_told_the_times_beforehand_says_the_same():
    base = digits(steps=4)
    network = copy.deepcopy(base.network).double()
    t, k = torch.tensor(base.times, dtype=torch.float64), torch.tensor([0, 3, 4, 3])
    on_grid = network.on_grid(t)
    x = torch.randn(4, 64, generator=rng(3), dtype=torch.float64)
    assert torch.allclose(on_grid(x, k), network(x, t[k]), rtol=1e-12)
    for i in range(5):
        assert torch.allclose(on_grid(x, i), network(x, t[i].expand(4)), rtol=1e-12)


def test_an_adapter_of_the_digits_is_exactly_nothing_at_first():
    """Though the base is told its times beforehand and the copy that trains is not."""
    base = digits(steps=4)
    model = Adapter().build(DIM, base, rng(1))
    x = torch.randn(3, DIM, generator=rng(2))
    assert not model.control(x, torch.tensor(0.25)).any()
    assert not model.on_grid(torch.tensor(base.times[:-1]))(x, 2, None).any()


def test_paths_of_the_pool_are_those_that_the_chain_took():
    """Their ends are the stored draws, and their steps have the noise of the base's own kernels,
    which paths traced back from the same ends by the noising do not."""
    rows = torch.tensor([1_203, 5, 77, *range(300, 497)])
    x, base = digits_pool.reproduce_paths(rows), digits()
    assert x.shape == (base.steps + 1, len(rows), DIM)
    assert (x[-1] - digits_pool.draws(x)[rows]).abs().max() < digits_pool.ROUNDED

    def uneven(points, k=48):
        """rms distance from 1 of the variances of the noise of a late step, pixel by pixel."""
        mean, std = base.base(points[k], k)
        return float((((points[k + 1] - mean) / std).square().mean(0) - 1).square().mean().sqrt())

    with torch.no_grad():
        back = retrace(base, Uncontrolled(), x[-1], rng(4))
        sd = (2 / len(rows)) ** 0.5  # what is expected of exact ones
        assert uneven(x) < 1.3 * sd < 1.8 * sd < uneven(back.x)


def test_paths_that_cannot_be_made_again_are_refused(monkeypatch):
    monkeypatch.setattr(digits_pool, "SEED", 4)
    with pytest.raises(RuntimeError, match="cannot be made again"):
        digits_pool.reproduce_paths(torch.tensor([5]))


def test_exact_draws_and_their_paths_are_chosen_alike(monkeypatch):
    pool = torch.randn(4_000, DIM, generator=rng(0))
    monkeypatch.setattr(digits_pool, "draws", lambda like: pool.to(like))
    monkeypatch.setattr(digits_pool, "reproduce_paths", lambda rows: pool[rows][None])
    monkeypatch.setattr(digits_pool, "STATISTICS", {})
    monkeypatch.setattr(digits_pool, "_seen", lambda: (pool[:, 0] > 0).long())
    truth = digits_pool.tilted(lambda x: -((x[:, 0] - 0.2) ** 2) / 2)
    torch.testing.assert_close(truth.paths(40, rng(1))[-1].double(), truth.sample(40, rng(1)))
