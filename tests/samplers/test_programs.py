"""Programs over pipes: what they are told and answered, what it costs, what goes wrong."""

import os
import re
import sys
import time

import pytest
import torch

from tests.tools.foreign import outcome
from tiltbench.records.record import Status
from tiltbench.samplers.adapters.program import from_program
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.gaussian import Gaussian

# a program that needs no library: `ask` and `send` speak the protocol, `body` is what it does
HEAD = """
import os, struct, sys, time
first_line = sys.stdin.buffer.readline().decode().split()
facts = dict(word.split("=") for word in first_line[2:])
dim, budget = int(facts["dim"]), int(facts["budget"])

def send(line, *numbers):
    sys.stdout.buffer.write(line.encode() + b"\\n" + struct.pack(f"<{len(numbers)}d", *numbers))
    sys.stdout.buffer.flush()

def ask(word, *numbers):
    n = len(numbers) // dim
    send(f"{word} {n}", *numbers)
    answer = sys.stdin.buffer.readline().split()
    if answer != [b"ok", str(n).encode()]:
        return answer[0].decode()
    much = n if word == "value" else n * (1 + dim)
    return struct.unpack(f"<{much}d", sys.stdin.buffer.read(8 * much))

"""


def program(tmp_path, body, patience=20.0, **parameters):
    file = tmp_path / "program.py"
    file.write_text(HEAD + body)
    argv = [sys.executable, "-S", "-E", str(file)]
    return from_program("mine", argv, patience, parameters=parameters)


def test_it_is_told_and_answered(tmp_path):
    """Values and gradients to the bit, sent back as draws; the first line, sent as a draw."""
    kind = program(
        tmp_path,
        """
x = (0.25, 0.5, -1.0, 3.0)
values, slopes = ask("value", *x), ask("grad", *x)
assert slopes[:2] == values, (slopes, values)
send("draws 5", *values, *slopes[2:], budget, float(facts["scale"]), int(facts["seed"]),
    len(first_line))
time.sleep(0.01)
send("done")
""",
    )
    meter, draws = outcome(kind, 100)
    x = torch.tensor([[0.25, 0.5], [-1.0, 3.0]], dtype=torch.float64)
    y, g = Gaussian().log_rho_and_grad(x)
    torch.testing.assert_close(draws.x[0], y, rtol=1e-14, atol=0)
    torch.testing.assert_close(draws.x[1:3], g, rtol=1e-14, atol=1e-14)
    assert draws.x[3].tolist() == [100, Gaussian().scale] and draws.x[4, 1] == 6
    assert meter.spent == Cost(4, 2)


def test_chains_weights_and_parameters(tmp_path):
    body = (
        "send(facts['words'].replace('_', ' '), *[float(i) for i in range(18)][:int(facts['k'])])"
    )
    _, chains = outcome(program(tmp_path, body, words="chains_2_3", k=12), 100)
    assert chains.group.tolist() == [0, 0, 0, 1, 1, 1] and chains.x[:, 0].tolist() == [
        *range(0, 12, 2)
    ]
    _, weighted = outcome(program(tmp_path, body, words="weighted_6", k=18), 100)
    assert weighted.log_w.tolist() == [*range(12, 18)] and weighted.group is None


def test_over_budget_it_is_told_and_draws_once_more(tmp_path):
    body = """
send("draws 1", 1, 1)
while ask("value", *[0.0] * 20) != "over":
    pass
send("draws 1", 2, 2)
send("draws 1", 3, 3)
send("done")
"""
    meter, draws = outcome(program(tmp_path, body), 105)
    assert meter.spent == Cost(100, 0) and draws.x.tolist() == [[3, 3]]


@pytest.mark.parametrize(
    "end", ["", "sys.exit(3)", "print('garbage')", "while True: ask('value', 0, 0)"]
)
def test_over_budget_what_it_sent_before_is_drawn_however_it_ends(tmp_path, end):
    body = f"""
ask("value", 0, 0)
send("draws 1", 1, 1)
while ask("value", *[0.0] * 20) != "over":
    send("draws 1", 2, 2)
{end}
"""
    assert outcome(program(tmp_path, body), 105)[1].x.tolist() == [[2, 2]]


# what a program does, and what is said of it
MISTAKES = {
    "dies": ("sys.exit('no such file')", r"mine ended \(exit code 1\) in the midst.*no such file"),
    "dies silently": ("os._exit(7)", r"exit code 7.*it said nothing on its standard error"),
    "is killed": ("os.kill(os.getpid(), 9)", r"mine ended \(signal 9\)"),
    "raises": ("1 / 0", "it said: ZeroDivisionError: division by zero"),
    "dies in the midst of numbers": (
        "send('value 3', 0, 0)",
        r"after 16 of 48 bytes, float64 numbers of shape \(3, 2\)",
    ),
    "hangs": ("time.sleep(60)", "mine wrote nothing where a line was due for 0.5 s"),
    "does not flush": (
        "sys.stdout.buffer.write(b'value 1'); time.sleep(60)",
        "for 0.5 s, and was ended; let it flush what it writes",
    ),
    "hangs within numbers": (
        "send('value 2', 0, 0); time.sleep(60)",
        "wrote nothing where 32 bytes of numbers was due",
    ),
    "prints": ("print('step 1 of 100', flush=True)", "mine wrote 'step 1 of 100' where a line"),
    "prints a lot": ("print('x' * 5000, flush=True)", "mine wrote 'xxx.*to its standard error"),
    "writes bytes": ("os.write(1, bytes(range(200, 250)) + b'\\n')", r"mine wrote '\\xc8.*' where"),
    "has a word too many": ("send('value 1 2')", "mine wrote 'value 1 2' where a line"),
    "asks for none": ("send('value 0')", "'value 0'; a message holds from 1 to 10,000,000"),
    "asks for too many": ("send('grad 99999999999')", "a message holds from 1 to"),
    "asks for fewer than none": ("send('grad -3')", "mine wrote 'grad -3' where a line"),
    "sends NaN": ("send('draws 1', float('nan'), 0)", "mine: 1 of 1 draws are not finite"),
    "sends NaN weights": ("send('weighted 1', 0, 0, float('nan'))", "log-weights are NaN"),
    "sends no draws": ("send('done')", "mine had handed over no draws when its budget of 100"),
    "ignores the budget": (
        "while ask('value', 0, 0): pass",
        "mine had handed over no draws when its budget of 100 calls",
    ),
    "reads no answer": (
        "n = 20000; send(f'value {n}', *[0.0] * n * dim); time.sleep(60)",
        "mine reads nothing of what it was sent for 0.5 s",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_gets_one_sentence(tmp_path, what):
    body, sentence = MISTAKES[what]
    waits = 0.5 if "sleep" in body else 20.0
    points = 20_000 if what == "reads no answer" else 100
    status, message = outcome(program(tmp_path, body, waits), points)
    assert status is (Status.DIVERGED if "NaN" in what else Status.FAILED)
    assert re.search(sentence, message) and "\n" not in message and "Misuse" not in message, message


def test_a_program_that_is_not_there(tmp_path):
    status, message = outcome(from_program("mine", ["no-such-program"]), 100)
    assert (
        status is Status.FAILED and "mine cannot start 'no-such-program' (No such file" in message
    )
    file = tmp_path / "text"
    file.write_text("not a program")
    assert "Permission denied" in outcome(from_program("mine", [str(file)]), 100)[1]


@pytest.mark.parametrize(
    "argv, parameters, sentence",
    [
        ("python x.py", {}, "give its words as a list"),
        (["python"], {"draw": 1}, "'draw' of mine is no name for a parameter"),
        (["python"], {"a b": 1}, "'a b' of mine is no name"),
        (["python"], {"path": "a b"}, "it must be a number or a word"),
    ],
)
def test_a_program_that_cannot_be_told_says_so_at_once(argv, parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_program("mine", argv, parameters=parameters)


@pytest.mark.parametrize("end", ["send('done'); time.sleep(600)", "time.sleep(600)"])
def test_no_program_is_left_behind(tmp_path, end):
    """One that goes on after its last word, or that is silent."""
    pid = tmp_path / "pid"
    body = f"open({str(pid)!r}, 'w').write(str(os.getpid())); send('draws 1', 0, 0); {end}"
    outcome(program(tmp_path, body, 0.3), 100)
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(int(pid.read_text()), 0)
            time.sleep(0.02)
