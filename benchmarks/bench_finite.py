"""What looking for numbers that are not finite costs an iteration of PPO: with every test, and with none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from benchmarks.harness import Row, compare, latency

BAR = 1.02
WARM_UP = 5
SECTION = {"id": "CartPole-v1", "num_envs": 8}


def finite_guards() -> list[Row]:
    """A rollout of 8 × 128 steps, its update (4 epochs, 4 minibatches), and what is kept to go back to."""
    run = _iteration()  # one for both sides: two would learn apart, and their episodes cost different times
    for _ in range(WARM_UP):
        run()

    def without() -> None:
        with _blind():
            run()

    return [
        latency(
            "PPO iteration, CartPole × 8, with and without tests for finite numbers",
            compare(run, without, rounds=101, inner=1),
            BAR,
        )
    ]


def _iteration() -> Callable[[], None]:
    import policysmith
    from policysmith.training.environments.make import make_vector
    from policysmith.training.nonfinite.rollback import Rollback
    from policysmith.training.ppo.ppo import PPO
    from policysmith.training.sections import Environment

    torch.manual_seed(0)
    environments = make_vector(Environment(**SECTION))
    policy = policysmith.build({"environment": SECTION, "model": {"type": "mlp", "hidden": [64, 64]}}, seed=0)
    algorithm = PPO()
    optimizer = algorithm.optimizer(policy)
    collector = algorithm.collector(policy, environments, 0, 0)
    finite = Rollback([policy], optimizer, 10)

    def run() -> None:
        finite.keep()
        policy.eval()
        rollout = collector.collect(128)
        policy.train()
        algorithm.update(policy, optimizer, rollout)
        finite.settle()

    return run


@contextmanager
def _blind() -> Iterator[None]:
    """No step, loss, gradient or state is looked at, and nothing is kept."""
    from policysmith.training.nonfinite.finite_steps import FiniteSteps
    from policysmith.training.nonfinite.rollback import Rollback
    from policysmith.training.optim.step_guard import StepGuard

    def step(self: StepGuard, optimizers: list[torch.optim.Optimizer], total: torch.Tensor) -> None:
        for optimizer in optimizers:
            optimizer.step()

    with (
        mock.patch.object(FiniteSteps, "look", lambda self, seen, ended, step: seen),
        mock.patch.object(StepGuard, "_step", step),
        mock.patch.object(Rollback, "keep", lambda self: None),
        mock.patch.object(Rollback, "settle", lambda self: None),
    ):
        yield
