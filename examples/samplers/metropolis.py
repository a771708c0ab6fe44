"""Random-walk Metropolis in many chains, as a program that needs NumPy only: see `walker.py`."""

import sys

import numpy as np


def ask(word, x):
    """The log density at points x (n, dim), or None where the budget is spent."""
    sys.stdout.buffer.write(f"{word} {len(x)}\n".encode() + x.astype("<f8").tobytes())
    sys.stdout.buffer.flush()
    answer = sys.stdin.buffer.readline().split()
    if answer[0] != b"ok":
        return None
    return np.frombuffer(sys.stdin.buffer.read(8 * len(x)), "<f8")


def main():
    words = sys.stdin.buffer.readline().decode().split()
    request = dict(word.split("=") for word in words[2:])
    dim, budget, scale = int(request["dim"]), int(request["budget"]), float(request["scale"])
    rng = np.random.default_rng(int(request["seed"]))
    chains = int(request["chains"])
    x = scale * rng.normal(size=(chains, dim))
    log_p, size, moves, states = ask("value", x), scale, 0, []
    total = budget // chains
    while True:
        new = x + size * rng.normal(size=x.shape)
        log_new = ask("value", new)
        if log_new is None:
            break
        accepted = np.log(rng.random(chains)) < log_new - log_p
        x = np.where(accepted[:, None], new, x)
        log_p = np.where(accepted, log_new, log_p)
        moves += 1
        if moves < total / 3:
            size *= np.exp((accepted.mean() - 0.3) / np.sqrt(moves))
        else:
            states.append(x)
    draws = np.stack(states or [x], 1)
    sys.stdout.buffer.write(f"chains {chains} {draws.shape[1]}\n".encode())
    sys.stdout.buffer.write(draws.astype("<f8").tobytes() + b"done\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
