"""The dialects that can be imported: a name, and the module whose function `read` understands it.

A dialect's module, and torch with it, is imported when it is used. A new dialect is its file and a line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policysmith.errors import RegistryError, did_you_mean

if TYPE_CHECKING:
    from policysmith.policy.actor_critic import ActorCritic

__all__ = ["DIALECTS", "Imported", "Importer", "find_importer"]

DIALECTS: Mapping[str, str] = {
    "flowrl": "policysmith.importers.flowrl",
    "keisei": "policysmith.importers.keisei",
    "metta": "policysmith.importers.metta",
    "model-config": "policysmith.importers.model_config",
    "policy-constructor": "policysmith.importers.policy_constructor",
}


@dataclass(frozen=True, eq=False)
class Imported:
    """What was made of a file: a policy in eval mode, and sentences on what was changed or left behind."""

    policy: ActorCritic
    notes: tuple[str, ...] = ()


Importer = Callable[..., Imported]


def find_importer(dialect: str) -> Importer:
    """The function `read(path, **options) → Imported` of a dialect; raises `RegistryError` for an unknown one.

    That of policy-constructor gives an `ImportedGraph`: its configurations are graphs, not policies.
    """
    if dialect not in DIALECTS:
        hint = did_you_mean(dialect, DIALECTS)
        raise RegistryError(f"unknown dialect {dialect!r}{hint}; there are: {', '.join(DIALECTS)}")
    read: Importer = importlib.import_module(DIALECTS[dialect]).read
    return read
