"""A trained control for those who have only torch: a state_dict, and a script that draws from it.

The script steps the chain that the control was trained on,

    x_0 = start z_0,  x_{k+1} = gain_k x_k + std_k (z_{k+1} + sqrt(dt_k) u(x_k, t_k)),  z ~ N(0, I),

and, given log rho, weighs its paths: log_w = log rho(x_K) - log p_base(x_K) - log dP^u/dP^base.
"""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tiltbench.plan.errors import Refused
from tiltbench.records.files import write_bytes
from tiltbench.records.names import short
from tiltbench.samplers.diffusion import Diffusion, Trained
from tiltbench.samplers.networks.model import Network
from tiltbench.samplers.networks.perceptron import Corrected, Guided, Mlp
from tiltbench.samplers.networks.sharpened import Sharpened
from tiltbench.samplers.networks.timed import FEATURES, MOST, Timed
from tiltbench.samplers.networks.valued import Valued
from tiltbench.samplers.recipes.recipe import Base
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.target import Density
from tiltbench.trained.chosen import title
from tiltbench.trained.reload import Loaded

LAYERS = ("state.", "time.", "hidden.", "out.")  # what of a model is its control
MARK = '"""Draws of '  # the first line of every script


class Written(NamedTuple):
    weights: Path
    script: Path
    tensors: int
    guided: bool  # whether drawing takes log rho


def write(loaded: Loaded, file: Path) -> Written:
    """`file`, a state_dict: the control's layers, and t (K + 1), gain (K), std (K) of its chain;
    and beside it the script, which ends in .py.

    Raises Refused where the run's control is no perceptron on a Gaussian reference, where the
    folder is not there, or where another file has the script's name."""
    script = file.with_suffix(".py")
    if not file.parent.is_dir():
        raise Refused(f"there is no folder {file.parent} for {file.name}; make it, or name another")
    if script.exists() and not script.read_text(errors="replace").startswith(MARK):
        raise Refused(
            f"{script} is a file of yours, where the script that draws would be written; give "
            f"{file.name} another name"
        )
    base, timed = _parts(loaded)
    tensors = {
        key: value.detach().cpu().clone()
        for key, value in loaded.state.model.state_dict().items()
        if key.startswith(LAYERS)
    }
    gains, stds = zip(*base.kernels, strict=True)
    for name, values in {"t": base.times, "gain": gains, "std": stds}.items():
        tensors[name] = torch.tensor(values, dtype=torch.float64)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    write_bytes(file, buffer.getvalue())
    write_bytes(script, _script(loaded, base, timed, tensors, file.name).encode())
    return Written(file, script, len(tensors), timed.guided)


def _parts(loaded: Loaded) -> tuple[Linear, Timed]:
    """The chain and the control.  Raises Refused where the script has no words for them."""
    sampler, state, draws = loaded.sampler, loaded.state, "`tiltbench draw` draws from it"
    if not isinstance(sampler, Diffusion) or not isinstance(state, Trained):
        raise Refused(f"{title(loaded.record)} has trained no control to be exported; {draws}")
    network = _inner(sampler.model)
    if network is None:
        raise Refused(
            f"the network {sampler.model.name} is too much for a short script, which knows Mlp and "
            f"Guided; {draws}"
        )
    base = loaded.problem.base
    plain = isinstance(base, Linear) and isinstance(loaded.target, Density) and base.removed == 0
    if not plain or not isinstance(sampler.recipe, Base):
        raise Refused(
            f"{title(loaded.record)} steps a chain that a short script cannot: it knows Gaussian "
            f"references of densities in all of R^n, with recipe=Base; {draws}"
        )
    timed = state.model.network
    assert isinstance(base, Linear) and isinstance(timed, Timed)
    return base, timed


def _inner(network: Network) -> Mlp | Guided | None:
    """The perceptron that is the control."""
    while isinstance(network, Valued | Corrected | Sharpened):
        network = network.network if isinstance(network, Sharpened) else network.control
    return network if isinstance(network, Mlp | Guided) else None


def _script(
    loaded: Loaded, base: Linear, timed: Timed, tensors: dict[str, Tensor], weights: str
) -> str:
    hidden = sum(key.startswith("hidden.") and key.endswith(".weight") for key in tensors)
    rate = timed.field.rate / math.pi
    guided = timed.guidance is not None
    numbers = {
        "NAME": _harmless(title(loaded.record)),
        "RUN": loaded.record.id,
        "WEIGHTS": repr(weights),
        "DIM": loaded.target.dim,
        "START": repr(math.sqrt(base.start_var)),
        "SPREAD": repr(float(base.spread)),
        "SCALE": repr(float(timed.field.inverse_spread)),  # type: ignore[arg-type]
        "HIDDEN": hidden,
        "FASTEST": repr(round(math.log10(float(rate[-1])), 6)),
        "FEATURES": FEATURES,
        "MOST": f"{MOST:g}",
        "LIMIT": repr(_limit(loaded, timed)) if guided else "",
        "TIMED": "e[:, :-1]" if guided else "e",
    }
    text = "".join((HEAD, LIMITED if guided else "", DRAW, HINTED if guided else "", STEP))
    text += (WEIGHED_GUIDED if guided else WEIGHED) + ("" if guided else MAIN)
    for key, value in numbers.items():
        text = text.replace(f"<{key}>", str(value))
    return text.replace("<LOG_RHO>", "log_rho" if guided else "log_rho=None").replace(
        "<USE>",
        "`draw(n, log_rho)`: x (n, D) and log_w (n,), E[exp(log_w) f(x)] = Z E_p*[f]; log_rho takes"
        "\n(n, D) to (n,) and is differentiated once a step."
        if guided
        else "`draw(n)`: x (n, D); `draw(n, log_rho)`: also log_w (n,), E[exp(log_w) f(x)] = Z "
        "E_p*[f].",
    )


def _harmless(title: str) -> str:
    """On one line of a docstring: a label may hold anything, the end of a string too."""
    return re.sub(r"[^\w .,=·+\[\]-]", "_", short(title, 72))


def _limit(loaded: Loaded, timed: Timed) -> float:
    """The length to which spread grad r is clipped: by the sampler, then by the network."""
    assert timed.guidance is not None
    sampler: Diffusion = loaded.sampler  # type: ignore[assignment]
    return float(min(sampler.steepest * math.sqrt(loaded.target.dim), timed.guidance.clip))


HEAD = '''"""Draws of <NAME>.

<USE>
Written by tiltbench export, of run <RUN>; it needs torch alone.
"""

import math
import sys
from pathlib import Path

import torch
from torch.nn.functional import linear, silu

W = torch.load(Path(__file__).with_name(<WEIGHTS>), weights_only=True)
T, GAIN, STD = (W.pop(name).tolist() for name in ("t", "gain", "std"))
START, SPREAD, SCALE = <START>, <SPREAD>, <SCALE>  # sd of x_0, of the base's x_K; of the input
'''
LIMITED = """LIMIT = <LIMIT>  # of the length of SPREAD grad r


def grad(log_rho, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(log_rho(x).sum(), x)[0]
"""
DRAW = """

@torch.no_grad()
def draw(n, <LOG_RHO>, generator=None, device="cpu"):
    w = {name: value.to(device) for name, value in W.items()}
    rate = torch.logspace(-0.5, <FASTEST>, <FEATURES>) * math.pi
    angle = torch.tensor(T[:-1])[:, None] * rate
    waves = torch.cat([angle.sin(), angle.cos()], 1).to(device)
    e = linear(waves, w["time.0.weight"], w["time.0.bias"])
    e = linear(silu(e), w["time.2.weight"], w["time.2.bias"])
    x = START * torch.randn(n, <DIM>, generator=generator, device=device)
    noise = torch.randn(len(GAIN), n, <DIM>, generator=generator, device=device)
    log_ratio = torch.zeros(n, dtype=torch.float64, device=device)
    for k, z in enumerate(noise):
        h = silu(linear(SCALE * x, w["state.weight"], w["state.bias"]) + <TIMED>[k])
        for i in range(<HIDDEN>):
            h = silu(linear(h, w[f"hidden.{i}.weight"], w[f"hidden.{i}.bias"]))
        u = <MOST> * torch.tanh(linear(h, w["out.weight"], w["out.bias"]) / <MOST>)
"""
HINTED = """        g = SPREAD * (grad(log_rho, x) + x / SPREAD**2)  # of r = log rho - log p_base
        u = u + e[k, -1] * g * (LIMIT / g.norm(dim=-1, keepdim=True)).clamp(max=1)
"""
STEP = """        root = math.sqrt(T[k + 1] - T[k])
        x = GAIN[k] * x + STD[k] * (z + root * u)
        log_ratio += root * (u * z).sum(-1) + root**2 / 2 * u.square().sum(-1)
"""
BASE = """    log_base = x.double().square().sum(-1) / (-2 * SPREAD**2)
    log_base -= <DIM> * math.log(SPREAD * math.sqrt(2 * math.pi))
    return x, log_rho(x).double() - log_base - log_ratio
"""
WEIGHED = f"""    if log_rho is None:
        return x
{BASE}"""
WEIGHED_GUIDED = BASE
MAIN = """

if __name__ == "__main__":
    x = draw(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    print(f"{len(x)} draws, mean {x.mean(0).tolist()}, sd {x.std(0).tolist()}")
"""
