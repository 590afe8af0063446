"""One text for a stored policy: an artifact's directory, or `store#selector` for one of a store.

In: `runs/cartpole`, or `policies#best:return`. Out: the policy.
"""

from __future__ import annotations

from pathlib import Path

import torch

from policysmith.policy import ActorCritic
from policysmith.registry import Registry
from policysmith.store import artifact
from policysmith.store.policy_store import PolicyStore

__all__ = ["is_of_store", "is_stored", "load"]


def load(source: str | Path, *, device: torch.device | str = "cpu", registry: Registry | None = None) -> ActorCritic:
    """The policy stored in a directory, or that `store#selector` means (`s3://bucket/policies#best:return`).

    In eval mode on `device`; draws nothing from torch's global generator. Types of your own must be registered before,
    in `registry` or the default one.

    Raises:
        CheckpointError: there is no artifact or no such policy, it is damaged, of a newer format, or can't be built
            here.
    """
    if not is_of_store(source):
        return artifact.load(source, device=device, registry=registry)
    uri, _, selector = str(source).partition("#")
    return PolicyStore(uri, cache_size=0, registry=registry).load(selector or "latest", device=device)


def is_of_store(source: object) -> bool:
    """Whether it has the form `store#selector`; a directory that is there and is called so is one."""
    return isinstance(source, str | Path) and "#" in str(source) and not Path(source).exists()


def is_stored(source: object) -> bool:
    """Whether `load` is meant by it: an artifact's directory, or `store#selector`."""
    here = isinstance(source, str | Path) and (Path(source) / artifact.MANIFEST).is_file()
    return here or is_of_store(source)
