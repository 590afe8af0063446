"""What reading a file of another system gives, and the function that does: `find_importer("keisei")`.

In: the name of a dialect. Out: its `read`, which makes an `Imported` of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from policysmith.errors import ConfigError, Problem, RegistryError, did_you_mean
from policysmith.policy.actor_critic import ActorCritic
from policysmith.registry import default_registry
from policysmith.store import save

__all__ = ["Grammar", "Imported", "Importer", "find_importer", "refuse_weights"]


@dataclass(frozen=True, eq=False)
class Imported:
    """What was made of a file: a policy in eval mode, and sentences on what was changed or left behind."""

    policy: ActorCritic
    notes: tuple[str, ...] = ()

    def save(self, directory: str | Path) -> None:
        """Store it as an artifact."""
        save(self.policy, directory)


Importer = Callable[..., Any]


class Grammar(Protocol):
    """What a dialect registers in the slot `grammar`."""

    weights_apart: bool
    """Whether its systems keep weights in a file of their own, beside the one that describes the network."""

    def read(self, path: str | Path, weights: str | Path | None = None, **options: Any) -> Any:
        """What a file, and the weights beside it, become: an `Imported`, or what has its `save` and `notes`."""


def find_importer(dialect: str) -> Importer:
    """The function `read(path, weights=None, **options) → Imported` of a dialect; `RegistryError` for an unknown one.

    That of policy-constructor gives an `ImportedGraph`: its configurations are graphs, not policies.
    """
    known = default_registry.names("grammar")
    if dialect not in known:
        hint = did_you_mean(dialect, known)
        raise RegistryError(f"unknown dialect {dialect!r}{hint}; there are: {', '.join(known)}")
    read: Importer = default_registry.entry("grammar", dialect).target.read  # type: ignore[attr-defined]
    return read


def refuse_weights(system: str, weights: object) -> None:
    """Raise where weights are given beside a file that holds them itself."""
    if weights is not None:
        message = f"{system} keeps a network in one file, which holds the weights: leave them out"
        raise ConfigError([Problem("weights", message)])
