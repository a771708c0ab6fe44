"""The No-U-Turn sampler of blackjax, with Stan's window adaptation: needs the extra `jax`."""

import blackjax
import jax
import numpy as np

from tiltbench.samplers.adapters.functions import from_jax

jax.config.update(
    "jax_enable_x64", True
)  # energies of 1e4 nats leave float32 no digits to accept by
DEEPEST = 6  # doublings of a trajectory in the warm-up


def sample(log_prob, grad, dim, budget, rng, chains=4, warm_up=0.3, acceptance=0.8, doublings=10):
    """NUTS (Hoffman and Gelman, arXiv 1111.4246) with a diagonal mass matrix, in `chains` chains.

    Chains are run one after the other: under vmap all would pay for the deepest tree among them.
    Each warms up for as many moves as `warm_up` of its share of the budget pays for at half of
    2^DEEPEST gradients each, at most 1,000, then moves until the next might overspend."""
    share = budget // chains
    warm_moves = int(np.clip(warm_up * share / 2 ** (DEEPEST - 1), 30, 1000))

    @jax.jit
    def warm(key, x):
        adaptation = blackjax.window_adaptation(
            blackjax.nuts,
            log_prob,
            initial_step_size=0.1 * log_prob.scale,
            target_acceptance_rate=acceptance,
            max_num_doublings=DEEPEST,
        )
        (state, tuned), info = adaptation.run(key, x, num_steps=warm_moves)
        paid = info.info.num_integration_steps.sum() + 1
        return state, (tuned["step_size"], tuned["inverse_mass_matrix"]), paid

    kernel = blackjax.nuts.build_kernel()

    @jax.jit
    def move(key, state, size, mass):
        return kernel(key, state, log_prob, size, mass, max_num_doublings=doublings)

    chains_visited = []
    for chain in range(chains):
        start, key = jax.random.split(jax.random.fold_in(rng, chain))
        x = log_prob.scale * jax.random.normal(start, (dim,))
        key, chain_key = jax.random.split(key)
        state, tuned, spent = warm(chain_key, x)
        spent, dearest, visited = int(spent), 1, []
        while not visited or spent + 2 * dearest + 1 <= share:  # a tree at most doubles once more
            key, chain_key = jax.random.split(key)
            state, info = move(chain_key, state, *tuned)
            visited.append(np.asarray(state.position))
            spent += int(info.num_integration_steps)
            dearest = max(dearest, int(info.num_integration_steps))
        chains_visited.append(np.stack(visited))
        shortest = min(len(each) for each in chains_visited)
        evenly = [
            each[np.linspace(0, len(each) - 1, shortest).astype(int)] for each in chains_visited
        ]
        yield np.stack(evenly)


nuts = from_jax("nuts", sample)
