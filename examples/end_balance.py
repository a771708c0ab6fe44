"""A loss of a flow along the path, in one file: every stretch that ends at the end balances."""

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import batch_path
from tiltbench.samplers.losses.subtrajectory_balance import log_flows
from tiltbench.samplers.losses.trajectory_balance import trajectory_balance
from tiltbench.samplers.networks.valued import Valued


def value(model, process, batch, generator):
    """E mean_k (log F_k(X_k) + log P_F(X_k..X_K) - log rho(X_K) - log P_B(X_k..X_K))^2.

    `log_flows` is phi_k = log F_k - log p_k, which ends in r; the base's own reversal is P_B, so
    that what is left of P_F / P_B is the log-ratio of the kernels with control and without."""
    path = process.under(model, batch_path(process, batch))
    phi = log_flows(model, path, batch["r"])
    steps = process.log_ratios(path)
    ahead = steps.sum(0) - steps.cumsum(0) + steps  # from k on, for k < K
    return (phi[:-1] + ahead - phi[-1]).square().mean()


loss = trajectory_balance._replace(name="end_balance", value=value, by_weights=False, needs="flow")
end_balance = Preset("end_balance", Diffusion(loss, model=Valued(), lr_log_Z=0.3))
