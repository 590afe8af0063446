"""What wrappers cost when nothing is wrong: a training step, and acting, with three around every component.

In: nothing. Out: rows of the result table. The peer is the same policy without them.
"""

from functools import partial
from typing import Any

import torch
from gymnasium import spaces

from benchmarks.harness import Row, compare, latency

FEATURES, ACTIONS, BATCH = 64, 8, 1024
THREE: list[Any] = ["safe", "regularized", {"type": "monitoring", "clip_value": 10.0}]
PASSIVE: list[Any] = ["regularized", "monitoring"]


def _policy(wrappers: list[Any], everywhere: bool = False) -> Any:
    """A policy whose trunk has the wrappers; its heads too, if `everywhere`."""
    import policysmith

    heads = wrappers if everywhere else []
    components = {
        "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [256, 256, 256], "wrappers": wrappers},
        "policy": {"type": "action_head", "in_keys": "trunk", "wrappers": heads},
        "state_value": {"type": "value_head", "in_keys": "trunk", "wrappers": heads},
    }
    config = {"model": {"type": "graph", "components": components}}
    return policysmith.build(config, spaces.Box(-1, 1, (FEATURES,)), spaces.Discrete(ACTIONS), seed=0).train()


class _Training:
    """Steps of Adam on what a policy says of the same transitions, with all that its wrappers do."""

    def __init__(self, wrappers: list[Any], everywhere: bool = False) -> None:
        from policysmith.training.optim.optimizers import Optimizers
        from policysmith.wrappers import attach_all

        torch.manual_seed(0)
        self.policy = _policy(wrappers, everywhere)
        self.adam = Optimizers.of(list(self.policy.parameters()), 1e-6)
        self.data = torch.randn(BATCH, FEATURES), torch.randint(ACTIONS, (BATCH,))
        attach_all(self.policy.components.values(), self.adam)
        self.reports = self.policy.reports
        self.evaluate = self.policy.evaluating(return_aux=self.reports)

    def step(self) -> None:
        log_prob, entropy, value, *aux = self.evaluate(*self.data)
        loss = value.square().mean() - log_prob.mean() - 0.01 * entropy.mean()
        for terms in aux:
            loss = loss + terms["regularization_loss"]
        self.adam.step(loss, 0.5)


def wrapped_training() -> list[Row]:
    """Forward, backward and step."""
    bare = _Training([])
    rows = []
    for name, ours, target in (
        ("safe, regularized and monitoring", _Training(THREE), 1.10),
        ("the same around the heads too", _Training(THREE, everywhere=True), None),
        ("safe", _Training(THREE[:1]), None),
        ("regularized and monitoring", _Training(PASSIVE), None),
    ):
        comparison = compare(ours.step, bare.step, rounds=101, inner=1)
        rows.append(latency(f"training step, 3×256 MLP, batch {BATCH:,}: {name}, against bare", comparison, target))
    return rows


def wrapped_acting() -> list[Row]:
    """One observation."""
    obs, bare = torch.randn(1, FEATURES), _policy([]).eval().acting()
    rows = []
    for name, wrappers in (("regularized and monitoring", PASSIVE), ("safe, regularized and monitoring", THREE)):
        ours = _policy(wrappers).eval().acting()
        comparison = compare(partial(ours, obs), partial(bare, obs))
        rows.append(latency(f"acting, one row: {name}, against bare", comparison, None))
    return rows
