"""Training's line to a store: policies on the way and at the end, each the child of the one before.

In: the section `store`, a policy and what is known of it. Out: records.
"""

from __future__ import annotations

from collections.abc import Mapping

from policysmith.errors import CheckpointError, ConfigError, Problem
from policysmith.policy.actor_critic import ActorCritic
from policysmith.store import PolicyStore
from policysmith.store.policy_record import PolicyRecord, checked_name
from policysmith.training.sections import Store

__all__ = ["StoreRecorder"]


class StoreRecorder:
    """Saves `policy` into the store that the section names, under its name or else `name`.

    `parent` is the hash of the run's latest record. Raises `ConfigError` for a name that a store can't have, and
    `CheckpointError` where the URI is of something else, before a step is trained.
    """

    def __init__(self, options: Store, policy: ActorCritic, name: str) -> None:
        try:
            self.name = checked_name(options.name or name)
        except CheckpointError as error:
            raise ConfigError([Problem("store.name", str(error))]) from None
        self.every, self.policy = options.every, policy
        self.store = PolicyStore(options.uri, cache_size=0)
        self.store.exists()
        self.parent: str | None = None

    def is_due(self, iteration: int) -> bool:
        """Whether this is an iteration after which to save."""
        return iteration % self.every == 0

    def record(self, step: int, iteration: int, metrics: Mapping[str, float]) -> PolicyRecord:
        """Save the policy as it is; metrics that are NaN are left out, for there was nothing to measure."""
        known = {name: value for name, value in metrics.items() if value == value}
        parents = [self.parent] if self.parent else []
        record = self.store.save(
            self.policy, name=self.name, step=step, epoch=iteration, metrics=known, parents=parents
        )
        self.parent = record.id
        return record
