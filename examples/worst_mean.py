"""A metric in one file: the coordinate whose mean is off most."""

from tiltbench.estimators import average
from tiltbench.metric import Metric
from tiltbench.samplers.weights import Estimate


def fn(target, truth, outcome, generator):
    """max_i |mean x_i - mean y_i|, y exact draws; the error is that of the worst coordinate."""
    x = outcome.draws.x
    y = truth.sample(len(x), generator)
    off = (x.mean(0) - y.mean(0)).abs()
    worst = int(off.argmax())
    return Estimate(float(off[worst]), average(x[:, worst], outcome.draws.group).se, len(x))


worst_mean = Metric("worst_mean", frozenset({"sample"}), "lower", "length", "floor", fn)
"""the largest error of a coordinate's mean"""
