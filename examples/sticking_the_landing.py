"""A loss through the path, in one file: relative entropy without the term that is noise."""

from tiltbench.samplers.loss import Loss, batch_path
from tiltbench.samplers.losses.relative_entropy import label, price


def value(model, process, batch, generator):
    """E[log dP^u/dP^base - r(x_K)], whose gradient reaches u through the path alone.

    Sticking the landing (Roeder, Wu and Duvenaud, arXiv 1703.09194): where log dP^u asks for u at
    the points of the path, u is held fixed; what that leaves out is a score, whose mean is 0.  At
    the optimum log dP^u/dP^base - r is the same for every path, and so is its gradient: 0."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    path = process.under(model, batch_path(process, batch))
    for p in parameters:
        p.requires_grad_(True)
    x = path.x[-1]
    r = batch["r"] + (batch["g"] * (x - x.detach())).sum(-1)
    return (process.log_ratio(path) - r).mean()


sticking_the_landing = Loss("sticking_the_landing", label, value, price, through_path=True)
