"""Low-rank adapters (LoRA, arXiv 2106.09685) for large pretrained networks, through peft."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Generator, nn

from tiltbench.samplers.sampler import Unsupported

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def low_rank(
    rank: int = 4, modules: Sequence[str] = ATTENTION
) -> Callable[[nn.Module, Generator], nn.Module]:
    """`trainable` of a Pretrained: the network with W + B A in the linear layers named, B = 0 at
    first.  The weights themselves are shared with the base, so that one copy of them is held.

    Raises Unsupported without peft."""

    def adapted(network: nn.Module, generator: Generator) -> nn.Module:
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise Unsupported(
                "low-rank adapters need peft: pip install -e '.[finetune]'"
            ) from error
        memo = {id(w): w for w in (*network.parameters(), *network.buffers())}
        twin = copy.deepcopy(network, memo)  # type: ignore[arg-type]
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        with torch.random.fork_rng():  # peft draws A from the global generator
            torch.manual_seed(seed)
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(modules))
            adapted_network: nn.Module = inject_adapter_in_model(config, twin)
        return adapted_network

    return adapted
