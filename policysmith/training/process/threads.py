"""How many torch threads a network deserves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from policysmith.policy.actor_critic import ActorCritic

__all__ = ["few_threads"]

SMALL_NETWORK = 1_000_000  # FLOPs a row


@contextmanager
def few_threads(policy: ActorCritic) -> Iterator[None]:
    """One torch thread for a small network on the CPU: handing out its work costs more than doing it.

    On a busy machine the difference is twentyfold; the number of threads before is restored.
    """
    before = torch.get_num_threads()
    flops = sum(node.measure.flops for node in policy.plan.nodes)
    if policy.device.type == "cpu" and flops < SMALL_NETWORK:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
