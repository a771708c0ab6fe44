"""The pretended GPU against CUDA's own rules, and that what it is for is caught."""

from dataclasses import dataclass

import pytest
import torch
from torch import Generator, nn

from tests.tools.pretend.device import Mixed, pretended, unmixed
from tiltbench.api import cell
from tiltbench.run.phases import run_cell
from tiltbench.targets.target import Density, Truth


@pytest.fixture
def device():
    with pretended() as gpu:
        yield gpu


def cuda(*shape):
    return torch.randn(shape, generator=Generator("cuda").manual_seed(0), device="cuda")


REFUSED = {
    "a sum": lambda: cuda(3) + torch.ones(3),
    "a product of matrices": lambda: cuda(3, 3) @ torch.ones(3, 3),
    "a layer": lambda: nn.Linear(3, 1).to("cuda")(torch.ones(2, 3)),
    "a list": lambda: torch.cat([cuda(3), torch.ones(3)]),
    "a number where none is taken": lambda: torch.stack([cuda(), torch.ones(())]),
    "indices": lambda: torch.ones(3)[torch.tensor([0], device="cuda")],
    "values": lambda: cuda(3).index_put_((torch.tensor([0, 1]),), torch.ones(2)),
    "in place": lambda: torch.ones(3).add_(cuda(3)),
    "a number in place": lambda: torch.ones(()).add_(cuda()),
    "a generator of the CPU": lambda: torch.randn(3, generator=Generator(), device="cuda"),
    "a generator of the device": lambda: torch.randn(3, generator=Generator("cuda")),
    "its generator in place": lambda: torch.ones(3).uniform_(generator=Generator("cuda")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_devices_do_not_mix(device, what):
    with pytest.raises(Mixed):
        REFUSED[what]()
    assert len(device.faults) == 1 and "test_rules.py" in device.faults[0]


def test_what_cuda_lets_pass(device):
    x = cuda(4, 3)
    assert (x * torch.tensor(2.0)).device == x.device == torch.device("cuda", 0)
    assert torch.where(x > 0, x, torch.tensor(0.0)).device == x.device
    assert x[torch.tensor([0, 1])].shape == (2, 3)
    assert x.new_tensor([1.0]).device == torch.zeros_like(x).device == x.device
    assert torch.zeros_like(x, device="cpu").device == x.cpu().device == torch.device("cpu")
    assert torch.randn(2, generator=Generator()).device == torch.device("cpu")
    assert Generator("cuda").device == torch.device("cuda")  # without an index, as CUDA's
    assert device.faults == []


def test_numpy_is_refused(device):
    with pytest.raises(TypeError, match="Tensor.cpu"):
        cuda(3).numpy()
    with pytest.raises(TypeError, match="Tensor.cpu"):
        cuda(3).__array__()


WAITS = {  # what, and how often the host waits
    "item": (lambda x: x.sum().item(), 1),
    "bool": (lambda x: bool((x > 0).any()), 1),
    "float": (lambda x: float(x[0, 0]), 1),
    "tolist": (lambda x: x.tolist(), 1),
    "cpu": (lambda x: x.cpu(), 1),
    "allclose": (lambda x: torch.allclose(x, x), 1),
    "equal": (lambda x: torch.equal(x, x), 1),
    "a boolean mask": (lambda x: x[x > 0], 1),
    "nonzero": (lambda x: x.nonzero(), 1),
    "unique": (lambda x: x.unique(), 1),
    "numbers": (lambda x: torch.tensor([1.0, 2.0], device=x.device), 1),
    "to": (lambda x: torch.ones(3).to(x), 1),
    "CPU indices": (lambda x: x[torch.tensor([0, 1])], 1),
    "arithmetic": (lambda x: (2 * x + x.mean(0)).exp().logsumexp(0), 0),
    "noise": (lambda x: torch.randn_like(x), 0),
    "full": (lambda x: torch.full((3,), 2.0, device=x.device), 0),
    "a filled mask": (lambda x: x.masked_fill(x > 0, 0.0), 0),
    "a number at a mask": (lambda x: x.clone().index_put_((x > 0,), x.new_zeros(())), 0),
    "its indices": (lambda x: x[x.argmax(0)], 0),
}


@pytest.mark.parametrize("what", WAITS)
def test_waits_are_counted_by_line(device, what):
    x = cuda(4, 3)
    device.forget()
    do, times = WAITS[what]
    do(x)
    assert device.syncs.total() == times
    assert all("test_rules.py" in line for line in device.syncs)


def test_launches_are_counted_and_views_are_not(device):
    x = cuda(4, 3)
    device.forget()
    x.t()[None].flatten(0, 1), x[1:], x.detach(), x.expand(2, 4, 3), torch.empty_like(x)
    assert device.launches == 0
    x.exp_().add(1.0)
    assert device.launches == 2
    y = nn.functional.silu(x.requires_grad_())
    device.forget()
    torch.autograd.grad(y, x, torch.ones_like(y))
    assert device.launches == 2  # the ones, and one kernel of CUDA's


def test_training_is_that_of_the_cpu(device):
    """Layers, gradients, clipping, fused Adam, checkpoints of graphs, vmap: the same numbers."""
    found = []
    for at in ("cpu", "cuda"):
        g = Generator(at).manual_seed(1)
        net = nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 1))
        for p in net.parameters():
            nn.init.uniform_(p, -1, 1, generator=Generator().manual_seed(p.numel()))
        net = net.to(at)
        rate = torch.tensor(1e-2, device=at)
        adam = torch.optim.Adam(net.parameters(), lr=rate, fused=True, capturable=at == "cuda")
        x = torch.randn(4, 3, generator=g, device=at)
        for _ in range(3):
            adam.zero_grad()
            slope = torch.func.vmap(torch.func.grad(lambda y: net(y[None]).sum()))(x)
            (net(x).square().mean() + slope.square().sum()).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            adam.step()
        found.append(torch.cat([p.detach().cpu().flatten() for p in net.parameters()]))
    assert torch.equal(*found) and device.faults == []


@dataclass(frozen=True)
class MixedUp(Density):
    """A constant that stays on the CPU."""

    name = "mixed_up"
    dim = 2

    def log_rho(self, x):
        return -(x - torch.ones(2)).square().sum(-1)

    def truth(self):
        return Truth("unknown")


def test_a_planted_mix_up_fails_its_test(tmp_path):
    """The harness makes a row of the table of whatever a target raises; the test fails still."""
    with pytest.raises(AssertionError, match="sub.*cuda:0.*test_rules.py"), unmixed():
        todo = cell(MixedUp(), "log_variance[paths=4]", device="cuda")
        record = run_cell(todo, tmp_path, code={})
        assert record.status == "failed" and "Mixed" in record.reason
