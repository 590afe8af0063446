"""Training: a policy learns by playing, or from recorded episodes. A folder a task; each needs only those above it.

`sections.py`    the sections of an experiment file that a run follows from
`process/`       what a run shares with its process: generators of random numbers, threads, signals
`optim/`         rules that update weights, schedules, the guard of a step, averages of weights
`distribution/`  several processes as one: who takes part, how weights and gradients are shared
`nonfinite/`     numbers that are not finite: left out, counted, and a state to go back to
`datasets/`      recorded episodes and the ways they are stored
`environments/`  environments by name, games for two, environments that can be brought back
`rollout/`       a policy acts: to learn from it, to judge it, to record it
`logging/`       what is told of an iteration, and to whom
`algorithm.py`   the options that every algorithm has
`ppo/`           proximal policy optimisation: collect, advantages, minibatches, loss, step
`offline/`       learning from recorded episodes
`games/`         opponents, self-play, matches
`experiment.py`  from a configuration to a policy: read, planned, built
`run/`           from the first iteration to the artifact: checkpoints, resuming, the end
`types.py`       imports all that registers types

Names for users are found here when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names, moved_module

if TYPE_CHECKING:
    from policysmith.training.datasets.memmap import write_episodes
    from policysmith.training.datasets.numpy_arrays import from_arrays
    from policysmith.training.environments.make import make_environment, make_vector
    from policysmith.training.logging.plots import plot_learning_curve, plot_learning_curves
    from policysmith.training.logging.report import Report
    from policysmith.training.offline.offline import Offline
    from policysmith.training.ppo.ppo import PPO
    from policysmith.training.rollout.evaluation import EvaluationResult, evaluate_policy

__all__ = [
    "PPO",
    "EvaluationResult",
    "Offline",
    "Report",
    "evaluate_policy",
    "from_arrays",
    "make_environment",
    "make_vector",
    "plot_learning_curve",
    "plot_learning_curves",
    "write_episodes",
]

__getattr__ = lazy_names(
    __name__,
    {
        "PPO": "policysmith.training.ppo.ppo",
        "EvaluationResult": "policysmith.training.rollout.evaluation",
        "Offline": "policysmith.training.offline.offline",
        "Report": "policysmith.training.logging.report",
        "evaluate_policy": "policysmith.training.rollout.evaluation",
        "from_arrays": "policysmith.training.datasets.numpy_arrays",
        "make_environment": "policysmith.training.environments.make",
        "make_vector": "policysmith.training.environments.make",
        "plot_learning_curve": "policysmith.training.logging.plots",
        "plot_learning_curves": "policysmith.training.logging.plots",
        "write_episodes": "policysmith.training.datasets.memmap",
    },
)

# Paths that the documentation named when these files lay side by side.
for _before, _now in {
    "curve": "logging.plots",
    "evaluation": "rollout.evaluation",
    "offline_objectives": "offline.objectives",
    "online": "ppo.ppo",
    "value_objectives": "ppo.value_objectives",
}.items():
    moved_module(f"{__name__}.{_before}", f"{__name__}.{_now}")
