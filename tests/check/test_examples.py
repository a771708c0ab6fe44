"""The examples of losses and samplers keep the contract, where their libraries are installed."""

from pathlib import Path

import pytest

from tiltbench.check.contract import check

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = {
    "sticking_the_landing.py": (),
    "end_balance.py": (),
    "samplers/variational.py": (),
    "samplers/walker.py": (),
    "samplers/nuts.py": ("jax", "blackjax"),
    "samplers/flow.py:flow_reverse": ("flows", "zuko"),
    "samplers/flow.py:flow_forward": ("flows", "zuko"),
}


@pytest.mark.parametrize("name", FILES)
def test_it_keeps_the_contract(name):
    if FILES[name]:
        extra, library = FILES[name]
        pytest.importorskip(library, reason=f"needs the extra `{extra}`")
    assert [finding for finding in check(f"{EXAMPLES / name}") if not finding.ok] == []
