"""What other processes do to a store in the tests: they save, and are killed while they do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from gymnasium import spaces

import policysmith.api
from policysmith.store import PolicyStore, record_index, storage

CONFIG = {
    "model": {
        "type": "graph",
        "components": {
            "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [8]},
            "policy": {"type": "action_head", "in_keys": "trunk"},
            "state_value": {"type": "value_head", "in_keys": "trunk"},
        },
    }
}
OBSERVATIONS = torch.linspace(-1, 1, 12).reshape(3, 4)


def small_policy(value: float = 0.0):
    """A policy whose policy head is filled with `value`; its trunk is always the same."""
    torch.set_num_threads(1)
    policy = policysmith.api.build(CONFIG, spaces.Box(-1, 1, (4,)), spaces.Discrete(2), seed=0)
    with torch.no_grad():
        for parameter in policy.components["policy"].parameters():
            parameter.fill_(value)
    return policy


def save_many(uri: str, worker: int, count: int) -> None:
    """Save `count` policies, each of which tells by its head who it is."""
    store, policy = PolicyStore(uri), small_policy()
    for number in range(count):
        value = worker * 1000.0 + number
        with torch.no_grad():
            for parameter in policy.components["policy"].parameters():
                parameter.fill_(value)
        store.save(policy, name=f"worker-{worker}", step=number, metrics={"value": value}, tags=["all"])


def save_until_killed(uri: str, worker: int) -> None:
    save_many(uri, worker, 10**6)


def save_and_die(uri: str, moment: int) -> None:
    """Save once, killed just before the step of that number; a save that takes fewer steps ends well."""
    policy, done = small_policy(float(moment)), [0]

    def deadly(step):
        def counted(*arguments, **options):
            if done[0] == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            done[0] += 1
            return step(*arguments, **options)

        return counted

    storage.write_synced = deadly(storage.write_synced)
    storage.sync_directory = deadly(storage.sync_directory)
    Path.replace = deadly(Path.replace)
    record_index.Index.add = deadly(record_index.Index.add)
    record_index._insert = deadly(record_index._insert)
    PolicyStore(uri).save(policy, name="dying", step=moment, metrics={"value": float(moment)}, tags=["late"])


def values_of(store: PolicyStore) -> list[float]:
    """Load every policy that is listed, and say what its head holds: what its record says, or it is broken."""
    found = []
    for record in store.find():
        (value,) = {
            float(v) for p in store.load(record).components["policy"].parameters() for v in p.detach().flatten()
        }
        assert value == record.metrics["value"]
        found.append(value)
    return found
