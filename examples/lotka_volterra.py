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


FAR = 6.0  # nats from the guess, a factor of 400: beyond, the density is put to 0


def logs(x):
    """(n, 8) -> (8, n), the logarithms of the parameters."""
    return (GUESS + np.clip(WIDTH * x, -FAR, FAR)).T


def parameters(x):
    """(n, 8) -> (8, n)."""
    return np.exp(logs(x))


def normal(x, mean, sd):
    return -(((x - mean) / sd) ** 2) / 2 - np.log(sd) - np.log(2 * np.pi) / 2


def trajectory(alpha, beta, gamma, delta, z):
    """The logarithms (2, 21, n) of hares and lynxes each year; z (2, n) of the first."""

    def slope(z):  # of the logarithms, which stay finite where the animals die out
        u, v = np.exp(np.minimum(z, 20))
        return np.stack([alpha - beta * v, delta * u - gamma])

    years, h = [z], 1 / STEPS
    for _ in range(PELTS.shape[1] - 1):
        for _ in range(STEPS):
            a = slope(z)
            b = slope(z + h / 2 * a)
            c = slope(z + h / 2 * b)
            z = z + h / 6 * (a + 2 * b + 2 * c + slope(z + h * c))
        years.append(z)
    return np.stack(years, 1)


def log_posterior(x):
    """(n, 8) -> nats, all constants and the Jacobian of exp(GUESS + WIDTH x) included."""
    log_theta, theta = logs(x), parameters(x)
    rates, first, sigma = theta[:4], log_theta[4:6], theta[6:]
    found = normal(rates[[0, 2]], 1, 0.5).sum(0) + normal(rates[[1, 3]], 0.05, 0.05).sum(0)
    found += normal(first, np.log(10), 1).sum(0) + normal(log_theta[6:], -1, 1).sum(0)
    found += log_theta[:4].sum(0) + np.log(WIDTH).sum()
    pelts = normal(PELTS, trajectory(*rates, first), sigma[:, None]) - PELTS
    inside = (np.abs(WIDTH * x) < FAR).all(-1)
    return np.where(inside, found + pelts.sum((0, 1)), -np.inf)


lotka_volterra = from_numpy(
    "lotka_volterra",
    log_posterior,
    dim=8,
    statistics={name: lambda x, i=i: parameters(x)[i] for i, name in enumerate(NAMES)},
)
