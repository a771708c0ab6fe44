"""Whether TF32 may round: read, written and restored, whatever a session has used to say it."""

import pytest
import torch

from tiltbench.targets import precision
from tiltbench.targets.precision import FULL, TF32, allowed, read, write
from tiltbench.targets.settings import preserved, standard


def operations(word):
    """By the words, which make PyTorch refuse to say what the flags are."""
    torch.backends.cudnn.conv.fp32_precision = word
    torch.backends.cuda.matmul.fp32_precision = word


def against(flag, word):
    """The flag of cuDNN first, and then all its words otherwise."""
    torch.backends.cudnn.allow_tf32 = flag
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = word


WAYS = {
    "nothing": lambda: None,
    "cuDNN off": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "cuDNN on": lambda: setattr(torch.backends.cudnn, "allow_tf32", True),
    "products": lambda: torch.set_float32_matmul_precision("medium"),
    "words on": lambda: operations("tf32"),
    "words off": lambda: operations("ieee"),
    "all on": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "words on, flag off": lambda: against(False, "tf32"),
    "words off, flag on": lambda: against(True, "ieee"),
    "the CPU's": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
}


@pytest.fixture
def restored():
    words = torch.backends.fp32_precision
    with preserved():
        yield
    torch.backends.fp32_precision = words


@pytest.mark.parametrize("way", WAYS)
def test_no_run_is_rounded_and_the_session_is_as_before(way, restored):
    WAYS[way]()
    before = read()
    with standard():
        assert read() == FULL and not allowed()
        # and who asks by the flags is told the same
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
        write(TF32)
        assert allowed() and torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"  # the CPU's stay exact
    assert read() == before


def test_what_a_CPU_may_do_is_no_matter_of_a_GPU(restored):
    write(FULL)
    torch.backends.mkldnn.matmul.fp32_precision = "tf32"
    assert not allowed()


def test_a_fresh_process_rounds_convolutions_and_recurrences():
    """What makes this file needed: cuDNN may use TF32 unless it is told not to."""
    with preserved():
        torch.backends.cudnn.allow_tf32 = True
        assert allowed()
        torch.backends.cudnn.allow_tf32 = False
        assert not allowed()
        for name in precision.GPU:
            library, kind = name.split(".")
            part = getattr(getattr(torch.backends, library), kind)
            before, part.fp32_precision = part.fp32_precision, "tf32"
            assert allowed(), name
            part.fp32_precision = before


def test_before_the_words_there_were_flags(monkeypatch):
    """PyTorch up to 2.8."""
    monkeypatch.setattr(precision, "_PLACES", [])
    with preserved():
        torch.backends.cudnn.allow_tf32 = True
        assert allowed()
        write(FULL._replace(words=()))
        assert not allowed() and not torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high")
        assert allowed()  # products are rounded, convolutions are not
        write(TF32._replace(words=()))
        assert allowed() and torch.backends.cuda.matmul.allow_tf32
