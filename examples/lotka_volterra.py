"""A posterior whose truth is unknown, from NumPy: hares and lynxes, a differential equation inside.

du/dt = (alpha - beta v) u and dv/dt = (delta u - gamma) v from (u0, v0), by Runge-Kutta of order 4,
5 steps a year; the pelts of each year are log-normal about them with sd sigma.  Priors: alpha and
gamma ~ N(1, .5), beta and delta ~ N(.05, .05), all positive; log u0 and log v0 ~ N(log 10, 1),
log sigma ~ N(-1, 1): the model of Stan's case study (Carpenter 2018), pelts in thousands as printed
by Howard (2009).
"""

import numpy as np

from tiltbench.targets.functions import from_numpy

HARES = [30.0, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22.0, 25.4, 27.1,
         40.3, 57.0, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7]  # fmt: skip
LYNXES = [4.0, 6.1, 9.8, 35.2, 59.4, 41.7, 19.0, 13.0, 8.3, 9.1, 7.4,
          8.0, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6]  # fmt: skip
PELTS = np.log(np.array([HARES, LYNXES]))[:, :, None]  # (2, 21, 1)
STEPS = 5  # a year
NAMES = ("alpha", "beta", "gamma", "delta", "u0", "v0", "sigma_hare", "sigma_lynx")
# The parameters are exp(GUESS + WIDTH x): all positive, and x of order one, which samplers like.
GUESS = np.log([0.55, 0.028, 0.8, 0.024, 34.0, 6.0, 0.25, 0.25])
WIDTH = np.array([0.12, 0.15, 0.12, 0.15, 0.09, 0.09, 0.17, 0.17])


MEANS = np.array([1, 0.05, 1, 0.05])[:, None]  # of the priors of alpha, beta, gamma and delta
SDS = np.array([0.5, 0.05, 0.5, 0.05])[:, None]
FAR = 6.0  # nats from the guess, a factor of 400: beyond, the density is put to 0
MOST = 20.0  # the logarithm of more animals than there are: beyond, exp might overflow


def logs(x):
    """(n, 8) -> (8, n), the logarithms of the parameters."""
    return (GUESS + np.clip(WIDTH * x, -FAR, FAR)).T


def parameters(x):
    """(n, 8) -> (8, n)."""
    return np.exp(logs(x))


def normal(x, mean, sd):
    return -(((x - mean) / sd) ** 2) / 2 - np.log(sd) - np.log(2 * np.pi) / 2


def years(slope, state):
    """The state (2, ..., n) each year, (21, 2, ..., n), along d state / dt = slope(state)."""
    states, h = [state], 1 / STEPS
    for _ in range(PELTS.shape[1] - 1):
        for _ in range(STEPS):
            a = slope(state)
            b = slope(state + h / 2 * a)
            c = slope(state + h / 2 * b)
            state = state + h / 6 * (a + 2 * b + 2 * c + slope(state + h * c))
        states.append(state)
    return np.stack(states)


def log_animals(rates, first):
    """The logarithms (21, 2, n) of hares and lynxes each year from those of the first."""
    alpha, beta, gamma, delta = rates

    def slope(z):  # of the logarithms, which stay finite where the animals die out
        u, v = np.exp(np.minimum(z, MOST))
        return np.stack([alpha - beta * v, delta * u - gamma])

    return years(slope, first)


def with_slopes(rates, first):
    """(21, 2, 7, n): the same, and behind it its derivatives by the logarithms of alpha, beta,
    gamma, delta, u0 and v0, which obey the linearised equation."""
    alpha, beta, gamma, delta = rates

    def slope(state):
        u, v = np.exp(np.minimum(state[:, 0], MOST))
        eaten, born = beta * v, delta * u
        slopes = np.stack([-eaten * state[1], born * state[0]])
        slopes[:, 0] = alpha - eaten, born - gamma
        slopes[0, 1] += alpha
        slopes[0, 2] -= eaten
        slopes[1, 3] -= gamma
        slopes[1, 4] += born
        return slopes

    start = np.zeros((2, 7, first.shape[1]))
    start[:, 0] = first
    start[0, 5] = start[1, 6] = 1
    return years(slope, start)


def inside(x):
    return (np.abs(WIDTH * x) < FAR).all(-1)


def log_posterior(x):
    """(n, 8) -> nats, all constants and the Jacobian of exp(GUESS + WIDTH x) included."""
    log_theta, theta = logs(x), parameters(x)
    rates, first, sigma = theta[:4], log_theta[4:6], theta[6:]
    log_p = normal(rates, MEANS, SDS).sum(0)
    log_p += normal(first, np.log(10), 1).sum(0) + normal(log_theta[6:], -1, 1).sum(0)
    log_p += log_theta[:4].sum(0) + np.log(WIDTH).sum()
    pelts = normal(PELTS, log_animals(rates, first).swapaxes(0, 1), sigma[:, None]) - PELTS
    return np.where(inside(x), log_p + pelts.sum((0, 1)), -np.inf)


def gradient(x):
    """(n, 8) -> (n, 8); without it differences are taken, 17 times the work of a value."""
    log_theta, theta = logs(x), parameters(x)
    rates, first, sigma = theta[:4], log_theta[4:6], theta[6:]
    z = with_slopes(rates, first)
    off = (PELTS.swapaxes(0, 1) - z[:, :, 0]) / sigma  # (21, 2, n), in standard deviations
    by_rate = 1 - (rates - MEANS) / SDS**2 * rates
    slope = np.concatenate([by_rate, np.log(10) - first, -1 - log_theta[6:]])
    slope[:6] += (z[:, :, 1:] * (off / sigma)[:, :, None]).sum((0, 1))
    slope[6:] += (off**2 - 1).sum(0)
    return np.where(inside(x)[:, None], (slope * WIDTH[:, None]).T, 0.0)


lotka_volterra = from_numpy(
    "lotka_volterra",
    log_posterior,
    dim=8,
    gradient=gradient,
    statistics={name: lambda x, i=i: parameters(x)[i] for i, name in enumerate(NAMES)},
)
