"""`make mutants`: breaks the mathematics one line at a time and shows which test notices.

Every mutant is a copy of the tree with one text replaced, installed aside and tested; the working
tree is never touched.  Prints a Markdown table; exits 1 where a mutant survives.  A mutant names
the test files that must notice it, or the one test (file::test).  With names of test files, such as
samplers/test_losses.py: the mutants that these must notice; with a part of a mutant's own
description: that one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Mutant(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "hacking: less reward than the tilt's counts as well",
        "bench/studies/frontier/hacking.py",
        "if not reward_z(pair) > SURE:",
        "if not abs(reward_z(pair)) > SURE:",
        "studies/test_frontier.py",
    ),
    Mutant(
        "hacking: the KL of the reward reached, not what it exceeds the tilt's by",
        "bench/studies/frontier/hacking.py",
        "result.least.kl - truth.exact.kl.value",
        "result.least.kl",
        "studies/test_frontier.py",
    ),
    Mutant(
        "hacking: a heavier KL weight may hack more",
        "bench/studies/frontier/hacking.py",
        "heavier.hacked - lighter.hacked",
        "lighter.hacked - heavier.hacked",
        "studies/test_frontier.py",
    ),
    Mutant(
        "a peak of memory that forgets what was freed",
        "bench/studies/memory/study.py",
        "max(np.cumsum(sizes), default=0)",
        "sum(s for s in sizes if s > 0)",
        "studies/test_memory.py",
    ),
    Mutant(
        "gated: a control that moves the centre of mass",
        "samplers/networks/gated.py",
        "return self.project(free + self.guidance.term(hint, gate))",
        "return free + self.guidance.term(hint, gate)",
        "samplers/test_gated.py",
    ),
    Mutant(
        "aldp: all of phi > 0 is the rare basin",
        "targets/densities/aldp.py",
        "LEFT = 2.1",
        "LEFT = 3.1",
        "targets/test_molecules.py::test_statistics_and_basins",
    ),
    Mutant(
        "a molecule's solvent without the 4 pi of its surface",
        "targets/molecules/system.py",
        "4 * math.pi * tension",
        "math.pi * tension",
        "targets/test_molecules.py::test_the_solvent_that_OpenMM_knows_by_itself",
    ),
    Mutant(
        "a molecule's descreening spheres by the whole radius",
        "targets/molecules/system.py",
        "[charge, rho, rho * scale]",
        "[charge, rho, radius * scale]",
        "targets/test_molecules.py::test_the_solvent_that_OpenMM_knows_by_itself",
    ),
    Mutant(
        "versus: the error over seeds is not divided by their number",
        "bench/trained/versus.py",
        "within = math.sqrt(sum(each.se**2 for each in seeds)) / len(seeds)",
        "within = math.sqrt(sum(each.se**2 for each in seeds))",
        "trained/test_versus.py::test_the_error_over_seeds_is_that_of_the_runs_or_of_their_spread",
    ),
    Mutant(
        "versus: the smaller of two errors over seeds",
        "bench/trained/versus.py",
        "Estimate(mean, max(within, spread)",
        "Estimate(mean, min(within, spread)",
        "trained/test_versus.py::test_the_error_over_seeds_is_that_of_the_runs_or_of_their_spread",
    ),
    Mutant(
        "what samplers say: weights in another order than the values",
        "bench/report/beside.py",
        "below = weight[order].cumsum(0)",
        "below = weight.cumsum(0)",
        "report/test_unknown.py::test_weights_carry_the_mean_and_seeds_that_disagree_widen_the_error",
    ),
    Mutant(
        "constrained: log sigmoid cut off where digits are left",
        "targets/constrained/transforms.py",
        "threshold=40.0",
        "threshold=20.0",
        "targets/test_constrained.py",
    ),
    Mutant(
        "nes1980 of a checkout: another age group is left out",
        "targets/densities/posteriors/_database.py",
        "for group in (2, 3, 4)",
        "for group in (1, 2, 3)",
        "targets/test_posteriordb.py",
    ),
    Mutant(
        "diamonds of a checkout: columns as they are, not centred",
        "targets/densities/posteriors/_database.py",
        "x - x.mean(0), y",
        "x, y",
        "targets/test_posteriordb.py",
    ),
    Mutant(
        "ordered parameters: the Jacobian counts the first, which is not an exponential",
        "targets/constrained/transforms.py",
        "        return steps.cumsum(-1), u[..., 1:].sum(-1)",
        "        return steps.cumsum(-1), u.sum(-1)",
        "targets/test_constrained.py",
    ),
    Mutant(
        "posteriors: the Jacobian lacks the widths of the table",
        "targets/constrained/parameters.py",
        "        log_jacobian = log_jacobian + slope + width.log().sum()",
        "        log_jacobian = log_jacobian + slope",
        "targets/test_constrained.py",
    ),
    Mutant(
        "cox_process: the mean of the field is that of its exponential",
        "targets/densities/posteriors/cox_process.py",
        "math.log(126) - 1.91 / 2",
        "math.log(126)",
        "targets/test_posteriors.py",
    ),
    Mutant(
        "regressions: widths are those of columns that know nothing of each other",
        "targets/densities/posteriors/_laws.py",
        '    widths = sd * torch.cholesky_inverse(rows["root"]).diagonal().sqrt()',
        '    widths = sd * rows["root"].diagonal().abs().reciprocal()',
        "targets/test_posteriors.py",
    ),
    Mutant(
        "worth its calls: ranks are compared, not scores at equal calls",
        "bench/report/tables/worth.py",
        "    known = {row.sampler: row.ranks.calls_off for row in rows if row.ranks}",
        "    known = {row.sampler: row.ranks.rank or 0 for row in rows if row.ranks}",
        "report/test_worth.py",
    ),
    Mutant(
        "garch11: the variance is pushed by y and not by its distance from the mean",
        "targets/densities/posteriors/garch11.py",
        '        square = (data["y"] - theta["mu"][..., None]).square()',
        '        square = (data["y"] - 0 * theta["mu"][..., None]).square()',
        "targets/test_posteriors.py",
    ),
    Mutant(
        "check of posteriors: any Jacobian will do",
        "bench/check/stated/jacobian.py",
        "    return bool(((a - b).abs() <= rounding).all())",
        "    return True",
        "check/test_jacobian.py",
    ),
    Mutant(
        "posteriordb: an archive may unpack to anything",
        "targets/constrained/posteriordb.py",
        "                text = file.read(LARGEST + 1)  # whatever size the archive states",
        "                text = file.read()[:LARGEST]  # whatever size the archive states",
        "targets/test_posteriordb.py",
    ),
    Mutant(
        "guidance: its force is not in units of the step's noise",
        "samplers/baselines/guidance.py",
        "        return self.strength * std / math.sqrt(dt) * g",
        "        return self.strength * math.sqrt(dt) * g",
        "studies/test_parity.py",
    ),
    Mutant(
        "plug-in guidance: the clock of the posterior mean runs without its gain",
        "bench/studies/parity/plug_in.py",
        "    return [(gain * std) ** 2 for",
        "    return [std**2 for",
        "studies/test_parity.py",
    ),
    Mutant(
        "random walk: the base's density is left out of the test",
        "samplers/classical/rwm.py",
        "    gain = base.log_end(new.x) - base.log_end(at.x) + torch.where",
        "    gain = torch.where",
        "samplers/test_classical.py",
    ),
    Mutant(
        "exploring paths weighed with the sign of their excess turned",
        "samplers/losses/_matching.py",
        "else ratio + path.excess",
        "else ratio - path.excess",
        "samplers/test_behaviour.py",
    ),
    Mutant(
        "exploring paths: the normalising constants of wider kernels",
        "samplers/behaviour/exploration.py",
        "- steps * dim / 2 * math.log1p(extra)",
        "- steps * dim * math.log1p(extra)",
        "samplers/test_behaviour.py",
    ),
    Mutant(
        "replay: ranks by the reward alone",
        "samplers/behaviour/buffer.py",
        "buffer.r[:n] + problem.base.log_end(buffer.x[:n]).double()",
        "buffer.r[:n]",
        "samplers/test_behaviour.py",
    ),
    Mutant(
        "local search: visits of the burn-in are kept",
        "samplers/behaviour/local_search.py",
        "if number >= self.burn_in:",
        "if number >= 0:",
        "samplers/test_behaviour.py",
    ),
    Mutant(
        "law of the base: the start is forgotten",
        "targets/bases/mixture_flow.py",
        "        return self.log_end(x[-1].double()) - start",
        "        return self.log_end(x[-1].double())",
        "targets/test_law_of_the_base.py",
    ),
    Mutant(
        "law of the base: the chain's own steps stay in",
        "targets/bases/mixture_flow.py",
        "            log_ratio = log_ratio - log_normal(path.x[k + 1], path.mean[k], ahead, d)\n",
        "",
        "targets/test_law_of_the_base.py",
    ),
    Mutant(
        "law of the base: sign of its ratio in a weight",
        "targets/problem.py",
        "problem.base.log_ratio(path) - problem.base.log_law_over_chain",
        "problem.base.log_ratio(path) + problem.base.log_law_over_chain",
        "targets/test_law_of_the_base.py",
    ),
    Mutant(
        "law of the base: an escort's change of density counted twice",
        "samplers/recipes/escort.py",
        "        return ends - put[-1]",
        "        return ends",
        "targets/test_law_of_the_base.py",
    ),
    Mutant(
        "paths of the digits: noise of another path",
        "targets/digits/pool.py",
        "xi[:, here[mine] - first]",
        "xi[:, here[mine] - first].flip(1)",
        "targets/test_digits.py",
    ),
    Mutant(
        "k_hat of 1/w",
        "bench/estimators.py",
        "array_stats.psislw(-values)",
        "array_stats.psislw(values)",
        "test_estimators.py",
    ),
    Mutant(
        "unseen: what the seen weights would have made is not taken off",
        "bench/estimators.py",
        "    lacking = -torch.expm1(log_mean_exp(log_w) - other)",
        "    lacking = torch.ones_like(other)",
        "test_estimators.py",
    ),
    Mutant(
        "an error of log Z is stated whatever the tail",
        "bench/metrics/log_Z.py",
        "    if k > most:",
        "    if k > 9 * most:",
        "metrics/test_metrics.py",
    ),
    Mutant(
        "an error of log Z is stated whatever is unseen",
        "bench/metrics/log_Z.py",
        "    if beyond > estimate.se:",
        "    if beyond > 1:",
        "metrics/test_metrics.py",
    ),
    Mutant(
        "reverse paths by noising are not told apart",
        "bench/run/phases.py",
        "self.noised = not exact",
        "self.noised = False",
        "run/test_reverse_paths.py",
    ),
    Mutant(
        "sign of the Girsanov cross term",
        "targets/bases/process.py",
        "return _over_time(pull, cross) -",
        "return -_over_time(pull, cross) -",
        "targets/test_processes.py",
    ),
    Mutant(
        "factor 1/2 of the control's energy",
        "targets/bases/process.py",
        "_over_time(cost, energy)",
        "_over_time(2 * cost, energy)",
        "targets/test_processes.py",
    ),
    Mutant(
        "variance of the exact reversal",
        "targets/bases/linear.py",
        "math.sqrt(before) * std / math.sqrt(after)",
        "std",
        "targets/test_processes.py",
    ),
    Mutant(
        "weight of the bridge's far end",
        "targets/bases/linear.py",
        "g1 * v0 / total",
        "v0 / total",
        "targets/test_processes.py",
    ),
    Mutant(
        "transition variance of the stationary reference",
        "targets/bases/references.py",
        "-math.expm1(-total) * self.scale**2",
        "-math.expm1(-total / 2) * self.scale**2",
        "targets/test_processes.py",
    ),
    Mutant(
        "adjoint matching regresses on -sigma a",
        "samplers/losses/adjoint_matching.py",
        "y = sigma * base.adjoints(path.x, a)",
        "y = -sigma * base.adjoints(path.x, a)",
        "samplers/test_losses.py",
    ),
    Mutant(
        "adjoint sampling without the gain",
        "targets/bases/linear.py",
        "std / math.sqrt(t - s) * self.between(t, 1.0)[0]",
        "std / math.sqrt(t - s)",
        "samplers/test_losses.py",
    ),
    Mutant(
        "relative entropy's factor 1/2",
        "targets/bases/process.py",
        "path.dt.to(energy) / 2",
        "path.dt.to(energy)",
        "samplers/test_losses.py",
    ),
    Mutant(
        "trajectory balance with the sign of F",
        "samplers/losses/trajectory_balance.py",
        "log_Z = -model.free_energy",
        "log_Z = model.free_energy",
        "samplers/test_losses.py",
    ),
    Mutant(
        "ESS without the square",
        "samplers/weights.py",
        "- torch.logsumexp(2 * log_w, -1)",
        "- torch.logsumexp(log_w, -1)",
        "metrics/test_metrics.py samplers/test_losses.py",
    ),
    Mutant(
        "gradients not charged",
        "bench/run/meter.py",
        "meter.charge(Cost(grads=_points(g)))",
        "meter.charge(Cost())",
        "run/test_meter.py",
    ),
    Mutant(
        "a second-order pass counted as free",
        "bench/run/meter.py",
        "return _Gradient.apply(grad[0], ctx.meter), None",
        "return grad[0], None",
        "run/test_meter.py",
    ),
    Mutant(
        "the funnel's normalising term k x0 / 2",
        "targets/densities/funnel.py",
        "inner + (self.dim - 1) * x0)",
        "inner + self.dim * x0)",
        "targets/test_targets.py",
    ),
    Mutant(
        "the same term's slope in the gradient that the funnel states",
        "targets/densities/funnel.py",
        "(inner - (self.dim - 1)) / 2",
        "(inner - self.dim) / 2",
        "targets/test_gradients.py",
    ),
    Mutant(
        "faint terms of a sum of exponentials that are not faint",
        "targets/log_sum.py",
        "FAINT = -80.0",
        "FAINT = -30.0",
        "targets/test_gradients.py",
    ),
    Mutant(
        "a stated gradient that check does not look at far out",
        "bench/check/stated/gradient.py",
        "10.0: 100, ",
        "",
        "check/test_mistakes.py",
    ),
    Mutant(
        "the funnel's variance 9 drawn as 1",
        "targets/densities/funnel.py",
        "x0 = SPREAD * xi[:, :1]",
        "x0 = xi[:, :1]",
        "targets/test_targets.py",
    ),
    Mutant(
        "energy distance with the point paired with itself",
        "bench/metrics/_pairs.py",
        "torch.cat(rows) / (len(x) - 1)",
        "torch.cat(rows) / len(x)",
        "metrics/test_metrics.py",
    ),
    Mutant(
        "Bennett's log(n/m) with the other sign",
        "bench/estimators.py",
        "shift = math.log(n / m)",
        "shift = -math.log(n / m)",
        "test_estimators.py",
    ),
    Mutant(
        "the reverse estimate's sign",
        "bench/estimators.py",
        "return Estimate(-value, se if",
        "return Estimate(value, se if",
        "test_estimators.py",
    ),
    Mutant(
        "leapfrog with a full first kick",
        "samplers/classical/_leapfrog.py",
        "v = v + half * pull\n            x = ",
        "v = v + size * pull\n            x = ",
        "samplers/test_classical.py",
    ),
    Mutant(
        "acceptance that ignores the base",
        "samplers/classical/_leapfrog.py",
        "/ 2 - base.log_end(at.x) - tilt",
        "/ 2 - tilt",
        "samplers/test_classical.py",
    ),
    Mutant(
        "score matching with the wrong sign of the slope",
        "samplers/losses/_matching.py",
        "pick(blend.move, k, x) * away + pick(blend.slope",
        "pick(blend.move, k, x) * away - pick(blend.slope",
        "samplers/test_matching.py",
    ),
    Mutant(
        "resampling by the inverse control",
        "samplers/losses/_matching.py",
        "floored(r.double() - (ratio if path.excess is None",
        "floored(r.double() + (ratio if path.excess is None",
        "samplers/test_matching.py",
    ),
    Mutant(
        "draws of the weights themselves where their average is asked for",
        "samplers/learning.py",
        "else self.average.of(self.model)",
        "else self.model",
        "samplers/test_average.py",
    ),
    Mutant(
        "an average that still remembers where it started",
        "samplers/average.py",
        "(1 - decay) / -math.expm1(n * math.log(decay))",
        "1 - decay",
        "samplers/test_average.py",
    ),
    Mutant(
        "kept batches that stay at the tilt they were bought at",
        "samplers/tempering.py",
        "    return loss.tempered(process, batch, tilt / batch[TILT])",
        "    return batch",
        "samplers/test_tempering.py",
    ),
    Mutant(
        "a buffer of rewards at the tilt of their time",
        "samplers/diffusion.py",
        "return batch, (path.x[-1], r)",
        "return batch, (path.x[-1], self.tilt(share) * r)",
        "samplers/test_tempering.py",
    ),
    Mutant(
        "draws of a part of the tilt",
        "samplers/diffusion.py",
        "def posed(self, problem: Problem, tilt: float = 1.0)",
        "def posed(self, problem: Problem, tilt: float = 0.5)",
        "samplers/test_tempering.py",
    ),
    Mutant(
        "a learned base weighed without the volume of its coordinates",
        "samplers/networks/reference.py",
        "        return ends - self.log_volume()",
        "        return ends",
        "samplers/test_learned_base.py",
    ),
    Mutant(
        "kept paths weighed by the base that drew them",
        "samplers/recipes/learned_base.py",
        "return self.through(model, path.x, path.hint)",
        "return replace(learned(path), u=self.through(model, path.x, path.hint).u)",
        "samplers/test_learned_base.py",
    ),
    Mutant(
        "the reversal of a learned chain with the noise of the other end",
        "samplers/recipes/learned_base.py",
        "(before / after).sqrt() * std",
        "std",
        "samplers/test_learned_base.py",
    ),
    Mutant(
        "a learned stationary chain that does not stay so",
        "samplers/networks/reference.py",
        "torch.expm1(-spent)",
        "torch.expm1(-spent / 2)",
        "samplers/test_learned_base.py",
    ),
    Mutant(
        "tilt matching without u itself",
        "samplers/losses/tilt_matching.py",
        '(batch["steer"] - u.detach())',
        'batch["steer"]',
        "samplers/test_matching.py",
    ),
    Mutant(
        "full adjoint without the cost of u",
        "samplers/losses/adjoint_matching_full.py",
        "dt[k] * (y[k] - path.u[k])",
        "dt[k] * y[k]",
        "samplers/test_adjoint.py",
    ),
    Mutant(
        "the bridge's corrector with the wrong sign",
        "samplers/losses/adjoint_schroedinger_bridge.py",
        'batch["g"] - h.detach()',
        'batch["g"] + h.detach()',
        "samplers/test_adjoint.py",
    ),
    Mutant(
        "a trust region that ignores its radius",
        "samplers/losses/_trust_region.py",
        "divergence(betas * log_w, log_q) <= radius",
        "divergence(betas * log_w, log_q) <= torch.inf",
        "samplers/test_adjoint.py",
    ),
    Mutant(
        "sub-trajectories: the step ratio counted with the wrong sign",
        "samplers/losses/subtrajectory_balance.py",
        "levels[1:] - ahead",
        "levels[1:] + ahead",
        "samplers/test_flows.py",
    ),
    Mutant(
        "sub-trajectories: the start's flow is not normalised",
        "samplers/losses/subtrajectory_balance.py",
        "start = V[:1] - (",
        "start = V[:1] - 0 * (",
        "samplers/test_flows.py",
    ),
    Mutant(
        "cross-entropy: every path counts alike",
        "samplers/losses/trust_region_cross_entropy.py",
        'return -(batch["chance"] * ratio).sum()',
        "return -ratio.mean()",
        "samplers/test_flows.py",
    ),
    Mutant(
        "annealing through the denoiser, whose rate is not scaled",
        "samplers/recipes/annealing.py",
        "change = change + share * torch.stack(moved)",
        "change = change + torch.stack(moved)",
        "samplers/test_escorts.py",
    ),
    Mutant(
        "an escort weighed without w . slope",
        "samplers/recipes/escort.py",
        "path.growth + work).double()",
        "path.growth).double()",
        "samplers/test_escorts.py",
    ),
    Mutant(
        "kernels of the reversed chain at the wrong end",
        "targets/bases/noising.py",
        "    product = (behind - ahead) *",
        "    product = (ahead - behind) *",
        "samplers/test_escorts.py",
    ),
    Mutant(
        "ancestral steps without the ends' uncertainty",
        "targets/bases/interpolant.py",
        "math.hypot(math.sqrt(var), pull * base.uncertainty[k])",
        "math.sqrt(var)",
        "targets/test_interpolants.py",
    ),
    Mutant(
        "a tilted mixture that keeps its means",
        "targets/bases/components.py",
        "mean = self.mean + self.var[:, None] * slope",
        "mean = self.mean",
        "targets/test_tilts.py",
    ),
    Mutant(
        "the optimal control from the wrong Tweedie",
        "targets/bases/optimal.py",
        "(at + noise.square() * score) / signal",
        "(at + noise * score) / signal",
        "targets/test_interpolants.py",
    ),
    Mutant(
        "velocity with half of its noise",
        "targets/bases/noising.py",
        "second / 2 * score",
        "second / 4 * score",
        "targets/test_interpolants.py",
    ),
    Mutant(
        "overlap without the size of the sides",
        "bench/estimators.py",
        "Estimate(information * (1 / n + 1 / m)",
        "Estimate(information * (1 / n)",
        "test_estimators.py",
    ),
    Mutant(
        "noiseless end of adjoint matching without the control",
        "samplers/losses/adjoint_matching.py",
        "path.mean[-1] + path.std[-1] * path.dt[-1].sqrt() * path.u[-1]",
        "path.mean[-1]",
        "samplers/test_finetuning.py",
    ),
    Mutant(
        "truncated gradient one step short",
        "samplers/recipes/truncated.py",
        "k >= self.from_step",
        "k > self.from_step",
        "samplers/test_finetuning.py",
    ),
    Mutant(
        "guidance looks one step too late",
        "samplers/baselines/guidance.py",
        "self.base.denoise(y, k + 1) if self.base.noises[k + 1] else 1 * y",
        "self.base.denoise(y, k)",
        "samplers/test_finetuning.py",
    ),
    Mutant(
        "hints and pulls that are not clipped",
        "samplers/recipes/tamed.py",
        "return r, clipped(g, most)",
        "return r, g",
        "samplers/test_losses.py",
    ),
    Mutant(
        "log Z that starts at the mean reward",
        "samplers/loss.py",
        "model.log_Z.copy_((r - ratio).mean())",
        "model.log_Z.copy_(r.mean())",
        "samplers/test_losses.py",
    ),
    Mutant(
        "weights tempered by their size and not their differences",
        "samplers/weights.py",
        "below = log_w - log_w.max()",
        "below = log_w - 0",
        "samplers/test_weights.py",
    ),
    Mutant(
        "a pretrained base's score with the wrong sign",
        "targets/bases/pretrained.py",
        "float(at.noise_rate) - mix.score / float(at.noise)",
        "float(at.noise_rate) + mix.score / float(at.noise)",
        "targets/test_pretrained.py",
    ),
    Mutant(
        "an escort traced back by the later step's noise",
        "samplers/recipes/escort.py",
        "self.diffusion[min(j, k, self.steps - 1)]",
        "self.diffusion[min(k, self.steps - 1)]",
        "samplers/test_escorts.py",
    ),
    Mutant(
        "resampling: an island forgets what its ancestors weighed",
        "samplers/recipes/resampling.py",
        "mean.expand_as(log_w).flatten() - tall[ancestor]",
        "-tall[ancestor]",
        "samplers/test_resampling.py",
    ),
    Mutant(
        "resampling: the tilt of the slot, and not of its ancestor, is left behind",
        "samplers/recipes/resampling.py",
        "mean.expand_as(log_w).flatten() - tall[ancestor]",
        "mean.expand_as(log_w).flatten() - tall",
        "samplers/test_resampling.py",
    ),
    Mutant(
        "an escort's recorded mean that goes downhill",
        "samplers/recipes/escort.py",
        "dt * velocity[:-1] + climb *",
        "dt * velocity[:-1] - climb *",
        "samplers/test_escorts.py",
    ),
    Mutant(
        "a trajectory that comes back from too far out",
        "samplers/classical/_leapfrog.py",
        "lost = lost | ~(",
        "lost = ~(",
        "samplers/test_classical.py",
    ),
    Mutant(
        "a slope where there is no density",
        "targets/problem.py",
        "g.detach())\n        return r, alive(r, g)\n\n\nReward",
        "g.detach())\n        return r, g\n\n\nReward",
        "targets/test_processes.py",
    ),
    Mutant(
        "a tilt's own tensors handed out",
        "targets/problem.py",
        "r, g = (part.clone() for part in both(x))",
        "r, g = both(x)",
        "targets/test_processes.py",
    ),
    Mutant(
        "distances to the means without the signal",
        "targets/bases/components.py",
        "places = (signal[..., None] if isinstance(signal, Tensor) else signal) * mean",
        "places = signal[..., None] * mean if isinstance(signal, Tensor) else mean",
        "targets/test_interpolants.py",
    ),
    Mutant(
        "Bennett's sides in each other's place",
        "bench/metrics/log_Z.py",
        "both = given(outcome.draws.log_w), given(outcome.log_w_reverse)",
        "both = given(outcome.log_w_reverse), given(outcome.draws.log_w)",
        "metrics/test_metrics.py",
    ),
    Mutant(
        "the oldest batch of the ring, always",
        "samplers/diffusion.py",
        "*(ring[i] for i in chosen)",
        "*(ring[0] for i in chosen)",
        "samplers/test_losses.py",
    ),
    Mutant(
        "a guided hint clipped by coordinate",
        "samplers/networks/timed.py",
        "length = torch.linalg.vector_norm(hint, dim=-1, keepdim=True)",
        "length = hint.abs()",
        "samplers/test_losses.py",
    ),
    Mutant(
        "pulls clipped by coordinate",
        "samplers/recipes/tamed.py",
        "length = torch.linalg.vector_norm(g, dim=-1, keepdim=True, dtype=torch.float64)",
        "length = g.abs().double()",
        "samplers/test_losses.py",
    ),
    Mutant(
        "the Euler reversal with the noise of the later end",
        "targets/bases/interpolant.py",
        "Mix(1.0, velocity=-dt, score=dt * self.sigma(base.times[k]) ** 2 / 2)",
        "Mix(1.0, velocity=-dt, score=dt * self.sigma(base.times[k + 1]) ** 2 / 2)",
        "targets/test_interpolants.py",
    ),
    Mutant(
        "a carried step with w at the earlier end only",
        "targets/bases/noising.py",
        "mean_w = (start.carried + end.carried) / 2",
        "mean_w = start.carried",
        "targets/test_interpolants.py",
    ),
    Mutant(
        "normalisers that count the removed centre of mass, along a path",
        "targets/bases/linear.py",
        "rank, variances = x.shape[-1] - self.removed,",
        "rank, variances = x.shape[-1],",
        "targets/test_particles.py",
    ),
    Mutant(
        "normalisers that count the removed centre of mass, at the end",
        "targets/bases/linear.py",
        "d, s = x.shape[-1] - self.removed, self.spread",
        "d, s = x.shape[-1], self.spread",
        "targets/test_particles.py",
    ),
    Mutant(
        "the learning curve drawn from the stream of the draws",
        "bench/run/curve.py",
        'generator(cell.seed, "curve", cell.device)',
        'generator(cell.seed, "draw", cell.device)',
        "run/test_run.py",
    ),
    Mutant(
        "the learning curve drawn from the stream of training",
        "bench/run/curve.py",
        'generator(cell.seed, "curve", cell.device)',
        'generator(cell.seed, "train", cell.device)',
        "run/test_run.py",
    ),
    Mutant(
        "ESS seen from the target with n for n - 1",
        "bench/estimators.py",
        "(2 * math.log(n - 1) - both).exp()",
        "(2 * math.log(n) - both).exp()",
        "test_estimators.py",
    ),
    Mutant(
        "a jackknife with G for G - 1",
        "bench/estimators.py",
        "math.sqrt((groups - 1) / groups * float((without",
        "math.sqrt(float((without",
        "test_estimators.py",
    ),
    Mutant(
        "a biased standard deviation of floors",
        "bench/score/floor.py",
        "float(np.std(v, ddof=1))",
        "float(np.std(v))",
        "metrics/test_metrics.py",
    ),
    Mutant(
        "a step between audits charged for itself, not by its calls",
        "bench/run/compute.py",
        "flops *= calls / expected",
        "flops *= 1",
        "run/test_compute.py",
    ),
    Mutant(
        "a product that costs m n k",
        "bench/run/operations.py",
        "return 2.0 * args[0].numel() * args[1].shape[-1]",
        "return 1.0 * args[0].numel() * args[1].shape[-1]",
        "run/test_operations.py",
    ),
    Mutant(
        "schedules that follow calls only",
        "bench/run/training.py",
        "problem = replace(problem, share=lambda: meters.share)",
        "problem = replace(problem)",
        "run/test_compute.py",
    ),
    Mutant(
        "the sides of the overlap in each other's place",
        "bench/metrics/log_Z.py",
        "estimators.overlap(given(outcome.draws.log_w), given(outcome.log_w_reverse))",
        "estimators.overlap(given(outcome.log_w_reverse), given(outcome.draws.log_w))",
        "metrics/test_metrics.py::test_every_metric_of_weights_is_given_each_side_in_its_own_place",
    ),
    Mutant(
        "k_hat of the reverse side in the form of the forward one",
        "bench/metrics/k_hat.py",
        "_known(estimators.k_hat(-back), -back)",
        "_known(estimators.k_hat(back), -back)",
        "metrics/test_metrics.py::test_every_metric_of_weights_is_given_each_side_in_its_own_place",
    ),
    Mutant(
        "a kernel Stein discrepancy whose divergence counts the removed dimensions",
        "bench/metrics/ksd.py",
        "math.sqrt(2 * target.rank), target.rank)",
        "math.sqrt(2 * target.rank), target.dim)",
        "metrics/test_unknown.py::test_it_counts_the_dimensions_of_the_subspace",
    ),
    Mutant(
        "a kernel Stein discrepancy whose length counts the removed dimensions",
        "bench/metrics/ksd.py",
        "target.scale * math.sqrt(2 * target.rank)",
        "target.scale * math.sqrt(2 * target.dim)",
        "metrics/test_unknown.py::test_it_counts_the_dimensions_of_the_subspace",
    ),
    Mutant(
        "a draw's mean over the others divided by all",
        "bench/metrics/ksd.py",
        "each = rows / (len(x) - sizes[index])",
        "each = rows / len(x)",
        "metrics/test_unknown.py::test_value_and_error_of_few_draws_by_hand",
    ),
    Mutant(
        "the error of exact draws without its 2",
        "bench/metrics/ksd.py",
        "math.sqrt(2 * float(between.square().sum()))",
        "math.sqrt(float(between.square().sum()))",
        "metrics/test_unknown.py::test_value_and_error_of_few_draws_by_hand",
    ),
    Mutant(
        "the projection of a kernel of pairs without its 2",
        "bench/metrics/ksd.py",
        "projected = 2 * average(each, index).se",
        "projected = average(each, index).se",
        "metrics/test_unknown.py::test_value_and_error_of_few_draws_by_hand",
    ),
    Mutant(
        "the projection of a distance without its 2",
        "bench/metrics/_pairs.py",
        "of_x = average(2 * (rows - inside_x), group)",
        "of_x = average(rows - inside_x, group)",
        "metrics/test_metrics.py::test_errors_of_few_draws_are_those_of_their_formulas",
    ),
    Mutant(
        "the error of the exact side from the rows of the draws",
        "bench/metrics/_pairs.py",
        "average(2 * (columns - inside_y))",
        "average(2 * (rows - inside_y))",
        "metrics/test_metrics.py::test_errors_of_few_draws_are_those_of_their_formulas",
    ),
    Mutant(
        "the projection of diversity without its 2",
        "bench/metrics/diversity.py",
        "mean = average(2 * rows, group)",
        "mean = average(rows, group)",
        "samplers/test_finetuning.py::test_errors_of_few_draws_of_a_tilt_by_hand",
    ),
    Mutant(
        "the delta method of a KL without its - 1",
        "bench/metrics/base_kl.py",
        "w * (r - mean - 1)",
        "w * (r - mean)",
        "samplers/test_finetuning.py::test_errors_of_few_draws_of_a_tilt_by_hand",
    ),
    Mutant(
        "the error of a squared bias without its 2",
        "bench/metrics/observables.py",
        "2 * abs(bias) * se / known.sd",
        "abs(bias) * se / known.sd",
        "metrics/test_metrics.py::test_errors_of_few_draws_are_those_of_their_formulas",
    ),
    Mutant(
        "the least error of an observable by groups and not by draws",
        "bench/metrics/observables.py",
        "known.sd / math.sqrt(len(outcome.draws.x))",
        "known.sd / math.sqrt(groups)",
        "metrics/test_metrics.py::test_errors_of_few_draws_are_those_of_their_formulas",
    ),
    Mutant(
        "tr Cov of all batches but one counted as of all",
        "bench/metrics/grad_var.py",
        "spreads, _ = _split(gram.trace() - norms, gram.sum() - 2 * row + norms, m - 1)",
        "spreads, _ = _split(gram.trace() - norms, gram.sum() - 2 * row + norms, m)",
        "metrics/test_metrics.py::test_errors_of_few_gradients_are_those_of_the_jackknife_by_hand",
    ),
    Mutant(
        "the error of a log-mean-exp with n for n - 1",
        "samplers/classical/_anneal.py",
        "math.sqrt((1 / share - 1) / (n - 1))",
        "math.sqrt((1 / share - 1) / n)",
        "samplers/test_classical.py::test_error_of_log_mean_weight",
    ),
    Mutant(
        "importance resampling's log Z of the chosen and not of all",
        "samplers/baselines/importance_resampling.py",
        "log_Z=log_mean_weight(log_w))",
        "log_Z=log_mean_weight(log_w[chosen]))",
        "samplers/test_finetuning.py::test_the_error_of_importance_resampling_is_that_of_a_sample",
    ),
    Mutant(
        "the error of few ladders with L for L - 1",
        "samplers/classical/_replicas.py",
        "math.sqrt(ladders / (ladders - 1) * float(moved.square().sum()))",
        "math.sqrt(float(moved.square().sum()))",
        "samplers/test_parallel_tempering.py::test_the_error_of_few_ladders_is_that_of_a_sample",
    ),
    Mutant(
        "an island thin by n - 1 of its slots",
        "samplers/recipes/resampling.py",
        "thin = 1 / (n * share.square()",
        "thin = 1 / ((n - 1) * share.square()",
        "samplers/test_resampling.py::test_an_island_is_thin_by_its_share_of_effective_slots",
    ),
    Mutant(
        "Welch's degrees of freedom with n for n - 1",
        "bench/reference/tests.py",
        "(one.se**4 / (one.n - 1) + two.se**4 / (two.n - 1))",
        "(one.se**4 / one.n + two.se**4 / two.n)",
        "reference/test_reference.py::test_few_chains_are_compared_by_student_and_by_welch",
    ),
    Mutant(
        "a trust region (log-variance) around a law inside out",
        "samplers/losses/trust_region_log_variance.py",
        "log_q = None if path.excess is None else -path.excess",
        "log_q = None if path.excess is None else path.excess",
        "samplers/test_behaviour.py::test_a_trust_region_weighs_exploring_paths_to_the_control",
    ),
    Mutant(
        "a trust region (cross-entropy) around a law inside out",
        "samplers/losses/trust_region_cross_entropy.py",
        "log_q = None if path.excess is None else -path.excess",
        "log_q = None if path.excess is None else path.excess",
        "samplers/test_behaviour.py::test_a_trust_region_weighs_exploring_paths_to_the_control",
    ),
    Mutant(
        "a search that starts from the first points there are",
        "samplers/behaviour/replay.py",
        "return store.seen.x[self.choose(problem, store.seen, chains, generator)]",
        "return store.seen.x[:chains]",
        "samplers/test_behaviour.py::test_a_search_starts_from_what_is_chosen_and_ends_are_what_it_found",
    ),
    Mutant(
        "a replay that ignores what its search has found",
        "samplers/behaviour/replay.py",
        "buffer = visited if visited is not None and visited.written else store.seen",
        "buffer = store.seen",
        "samplers/test_behaviour.py::test_a_search_starts_from_what_is_chosen_and_ends_are_what_it_found",
    ),
    Mutant(
        "gradients of a step clipped entry by entry",
        "samplers/learning.py",
        "norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), self.clip)",
        "norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1e30)\n"
        "        torch.nn.utils.clip_grad_value_(state.model.parameters(), self.clip)",
        "samplers/test_losses.py::test_the_gradient_of_a_step_is_clipped_by_its_norm",
    ),
    Mutant(
        "the ball of trajectories cut by coordinate",
        "samplers/classical/_leapfrog.py",
        "~(x.square().mean(-1) < (FAR * base.spread) ** 2)",
        "~(x.square().amax(-1) < (FAR * base.spread) ** 2)",
        "samplers/test_classical.py::test_the_ball_of_trajectories_is_one_of_rms_coordinates",
    ),
    Mutant(
        "the doubt of a step at its later end",
        "targets/bases/pretrained.py",
        "np.interp(self.times[:-1], t, tau)",
        "np.interp(self.times[1:], t, tau)",
        "targets/test_pretrained.py::test_a_step_has_the_doubt_of_where_it_starts",
    ),
    Mutant(
        "the curve's draws paid for once",
        "bench/run/ledger.py",
        "self.meters.setdefault(phase, []).append(meter)",
        "self.meters[phase] = [meter]",
        "run/test_run.py::test_every_point_of_the_curve_is_paid_for",
    ),
    Mutant(
        "exact draws of scores from the stream of a run's",
        "bench/score/evaluate.py",
        'generator(seed, "reference")',
        'generator(seed, "truth")',
        "score/test_scores.py::test_each_purpose_of_scoring_has_its_own_stream",
    ),
    Mutant(
        "scores that draw from the stream of the reference",
        "bench/score/evaluate.py",
        'source = generator(record.spec["seed"], "score")',
        'source = generator(record.spec["seed"], "reference")',
        "score/test_scores.py::test_each_purpose_of_scoring_has_its_own_stream",
    ),
    Mutant(
        "weighted draws chosen by the stream of the reference",
        "bench/score/evaluate.py",
        'resample(draws.log_w, n, generator(record.spec["seed"], "score"))',
        'resample(draws.log_w, n, generator(record.spec["seed"], "reference"))',
        "score/test_scores.py::test_each_purpose_of_scoring_has_its_own_stream",
    ),
    Mutant(
        "floors from the stream of the reference",
        "bench/score/floor.py",
        'generator(seed, "floor", part=n)',
        'generator(seed, "reference", part=n)',
        "score/test_scores.py::test_each_purpose_of_scoring_has_its_own_stream",
    ),
    Mutant(
        "floors of all sizes from one stream",
        "bench/score/floor.py",
        'generator(seed, "floor", part=n)',
        'generator(seed, "floor")',
        "score/test_scores.py::test_each_purpose_of_scoring_has_its_own_stream",
    ),
    Mutant(
        "all parts of a certificate from one stream",
        "bench/reference/evidence.py",
        'generator(seed, "certify", part=PARTS[part])',
        'generator(seed, "certify")',
        "run/test_streams.py::test_parts_of_a_certificate_and_coins_of_audits_have_streams_of_their_own",
    ),
    Mutant(
        "audits chosen by the stream of training",
        "bench/run/compute.py",
        'STREAMS["audit"], block',
        'STREAMS["train"], block',
        "run/test_streams.py::test_parts_of_a_certificate_and_coins_of_audits_have_streams_of_their_own",
    ),
    Mutant(
        "the error of versus with each sampler's share of the draws for the other's",
        "bench/trained/versus.py",
        "rest.split([n, m])",
        "rest.split([m, n])",
        "trained/test_versus.py::test_the_error_is_that_of_each_sampler_by_its_own_draws",
    ),
    Mutant(
        "the spread of a mean over runs by their number and not its root",
        "bench/report/beside.py",
        ".std()) / math.sqrt(n)",
        ".std()) / n",
        "report/test_unknown.py::test_the_error_of_a_mean_over_runs_by_hand",
    ),
    Mutant(
        "tilt matching whose frozen stage stays the first",
        "samplers/losses/_forward_process.py",
        "model.earlier = Earlier(model.frozen(), now.goal, goal)",
        "model.earlier = Earlier(now.model, now.goal, goal)",
        "samplers/test_matching.py::test_a_skipped_stage_is_climbed_in_one_stride",
    ),
    Mutant(
        "pulls of a part of the tilt clipped at the length of all of it",
        "samplers/recipes/tamed.py",
        "most = tilt * steepest * math.sqrt(problem.dim) / problem.base.spread",
        "most = steepest * math.sqrt(problem.dim) / problem.base.spread",
        "samplers/test_losses.py::test_a_part_of_the_tilt_is_clipped_at_that_part",
    ),
    Mutant(
        "momenta that move the centre of mass",
        "samplers/classical/_leapfrog.py",
        "v = base.normal(at.x.shape, generator, DTYPE)",
        "v = torch.randn(at.x.shape, generator=generator, dtype=DTYPE)",
        "samplers/test_classical.py::test_moves_keep_the_centre_of_mass",
    ),
    Mutant(
        "a random walk of the centre of mass",
        "samplers/classical/rwm.py",
        "at.x + size * base.normal(at.x.shape, generator, DTYPE)",
        "at.x + size * torch.randn(at.x.shape, generator=generator, dtype=DTYPE)",
        "samplers/test_classical.py::test_moves_keep_the_centre_of_mass",
    ),
    Mutant(
        "a divergence of particles with that of their centre of mass",
        "samplers/networks/timed.py",
        "embedding, onto = self.field.embed(t, x), self.project(directions)",
        "embedding, onto = self.field.embed(t, x), directions",
        "samplers/test_escorts.py::test_the_divergence_on_a_subspace_is_that_of_what_moves_there",
    ),
    Mutant(
        "times of target score matching drawn by w and not by its square",
        "samplers/losses/target_score_matching.py",
        "emphasis = [w * w if w else 1.0",
        "emphasis = [w if w else 1.0",
        "samplers/test_matching.py::test_the_emphasis_of_every_target_is_as_stated",
    ),
    Mutant(
        "action matching centred by plain means",
        "samplers/escorts/nets_action.py",
        "(weight * still).sum(1, keepdim=True)",
        "still.mean(1, keepdim=True)",
        "samplers/test_escorts.py::"
        "test_what_action_matching_regresses_on_is_centred_by_its_weights",
    ),
    Mutant(
        "an error of the magnetisation over its mean",
        "bench/metrics/lattice.py",
        "w1(a, b) / float(b.square().mean().sqrt())",
        "w1(a, b) / float(b.abs().mean())",
        "metrics/test_geometry_metrics.py::test_magnetisation_error_of_a_shift",
    ),
    Mutant(
        "the width of a kernel from the draws that it judges",
        "bench/metrics/mmd.py",
        "torch.pdist(y[:1000]).median()",
        "torch.pdist(x[:1000]).median()",
        "metrics/test_metrics.py::test_the_width_of_mmd_is_that_of_the_exact_draws",
    ),
    Mutant(
        "regression targets at the earlier end of a step",
        "targets/bases/linear.py",
        "std / math.sqrt(t - s) * self.between(t, 1.0)[0]",
        "std / math.sqrt(t - s) * self.between(s, 1.0)[0]",
        "targets/test_processes.py::"
        "test_what_a_control_is_regressed_on_is_the_lean_adjoint_in_its_units",
    ),
    Mutant(
        "a free energy all of whose bends are the first",
        "samplers/networks/free_energy.py",
        "WAVES = tuple(j * math.pi",
        "WAVES = tuple(math.pi",
        "samplers/test_escorts.py::test_F_is_bent_by_sines_of_their_own_waves",
    ),
    Mutant(
        "the curve's part of measuring for one of its points",
        "bench/run/curve.py",
        "each = 200 * cell.curve * CURVE_POINTS",
        "each = 200 * cell.curve",
        "run/test_run.py::test_the_measuring_budget_is_shared_out_and_no_more",
    ),
    Mutant(
        "probes that may spend the curve's part",
        "bench/run/phases.py",
        "minus(self.cell.budget.draw).minus(curve_cost(cell))",
        "minus(self.cell.budget.draw)",
        "run/test_run.py::test_the_measuring_budget_is_shared_out_and_no_more",
    ),
    Mutant(
        "a last step of the flow's ODE beyond its end",
        "samplers/flows/probability_flow.py",
        ', "step_t": grid[1:]}',
        "}",
        "samplers/test_probability_flow.py",
    ),
    Mutant(
        "a flow solved to the mean error of its points",
        "samplers/flows/probability_flow.py",
        "mean(-1).amax().sqrt()",
        "mean().sqrt()",
        "samplers/test_probability_flow.py",
    ),
    Mutant(
        "a resampled island that keeps its height",
        "samplers/steering/_population.py",
        ".flatten() - tall[ancestor]",
        ".flatten()",
        "samplers/test_steering.py",
    ),
    Mutant(
        "slots that forget whose path they go on",
        "samplers/steering/_population.py",
        "memory[:, ancestor]",
        "memory",
        "samplers/test_steering.py",
    ),
    Mutant(
        "the fourth moment of a mixture",
        "targets/densities/_mixture.py",
        "m**4 + 6 * m**2 * v + 3 * v**2",
        "m**4 + 6 * m**2 * v + v**2",
        "targets/test_targets.py::test_moments_of_a_mixture_by_quadrature",
    ),
    Mutant(
        "a curve that keeps the state itself",
        "bench/run/curve.py",
        "self.states.append(CurveState(spent, copied(state)))",
        "self.states.append(CurveState(spent, state))",
        "run/test_run.py::test_the_curve_keeps_the_state_as_it_was",
    ),
]


def run(mutant: Mutant | None, tests: str) -> tuple[bool, str]:
    """(noticed, the first test that failed) in a copy of the tree, installed aside."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        names = "targets samplers bench src tests examples docs pyproject.toml LICENSE README.md"
        for name in names.split():
            source = ROOT / name
            if source.is_dir():
                unread = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, copy / name, symlinks=True, ignore=unread)
            else:
                copy.mkdir(exist_ok=True)
                shutil.copy(source, copy / name)
        if mutant:
            path = copy / mutant.file
            text = path.read_text(encoding="utf-8")
            if text.count(mutant.old) != 1:
                raise SystemExit(f"{mutant.what}: {mutant.old!r} must stand once in {mutant.file}")
            path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, *(f"tests/{name}" for name in tests.split())],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        failed = re.search(r"^(?:FAILED|ERROR) tests/([\w/]+\.py::\w+)", done.stdout, re.M)
        return done.returncode != 0, failed[1] if failed else done.stdout[-300:]


def main(chosen: list[str]) -> int:
    mutants = [
        m
        for m in MUTANTS
        if not chosen
        or set(chosen) & {name.partition("::")[0] for name in m.tests.split()}
        or any(name in m.what for name in chosen)
    ]
    unbroken = " ".join(sorted({name for mutant in mutants for name in mutant.tests.split()}))
    broken, first = run(None, unbroken)
    if broken:
        print(f"the unbroken tree fails: {first}")
        return 2
    print("| broken | in | noticed by |\n| --- | --- | --- |", flush=True)
    survivors = 0
    for mutant in mutants:
        noticed, first = run(mutant, mutant.tests)
        survivors += not noticed
        print(
            f"| {mutant.what} | `{mutant.file}` | {first if noticed else '**nothing**'} |",
            flush=True,
        )
    print(f"\n{len(mutants) - survivors} of {len(mutants)} noticed")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
