"""How two policies of a store differ: what was said of them, their configurations, and their weights by component.

In: two records, their configurations and their weights. Out: a `PolicyDiff`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policysmith.store.policy_record import PolicyRecord

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PolicyDiff", "compare"]

ABSENT = "(none)"
Change = tuple[Any, Any]


@dataclass(frozen=True)
class PolicyDiff:
    """What differs between a first and a second policy; what is alike is left out, but for `components`.

    `said` and `config` hold pairs by name or dotted path. `components` says of each `same`, `added`, `removed`,
    `reshaped`, or the largest change of a weight.
    """

    said: dict[str, Change]
    config: dict[str, Change]
    components: dict[str, str | float]

    @property
    def same(self) -> bool:
        """Whether the two would act alike."""
        return not self.config and set(self.components.values()) <= {"same"}


def compare(
    records: tuple[PolicyRecord, PolicyRecord],
    configs: tuple[Mapping[str, Any], Mapping[str, Any]],
    weights: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
) -> PolicyDiff:
    """The difference of the first to the second."""
    first, second = records
    names = [*first.components, *(name for name in second.components if name not in first.components)]
    states = {name: _state(name, records, weights) for name in names}
    said = ({**_said(record), **{f"metrics.{k}": v for k, v in record.metrics.items()}} for record in records)
    flat = (dict(_flat(config)) for config in configs)
    return PolicyDiff(_changes(*said), _changes(*flat), states)


def _said(record: PolicyRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "step": record.step,
        "epoch": record.epoch,
        "parents": record.parents,
        "tags": record.tags,
        "policysmith": record.policysmith,
    }


def _state(
    name: str, records: tuple[PolicyRecord, PolicyRecord], weights: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
) -> str | float:
    first, second = (record.components.get(name) for record in records)
    if first is None or second is None:
        return "added" if first is None else "removed"
    if first.get("shares") == second.get("shares") and len({_digest(name, record) for record in records}) == 1:
        return "same"
    one, other = (_weights(name, record, found) for record, found in zip(records, weights, strict=True))
    if {key: t.shape for key, t in one.items()} != {key: t.shape for key, t in other.items()}:
        return "reshaped"
    return max((_distance(tensor, other[key]) for key, tensor in one.items()), default=0.0)


def _sharing(name: str, record: PolicyRecord) -> list[str]:
    """The components that have the same weights as this one, which are kept under the first of them in the policy."""
    owner = record.components[name].get("shares", name)
    return [other for other, said in record.components.items() if said.get("shares", other) == owner]


def _digest(name: str, record: PolicyRecord) -> str | None:
    return next((d for other in _sharing(name, record) if (d := record.components[other].get("sha256"))), None)


def _weights(name: str, record: PolicyRecord, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a component by their names in it."""
    prefixes = tuple(f"components.{other}." for other in _sharing(name, record))
    return {key.split(".", 2)[2]: tensor for key, tensor in found.items() if key.startswith(prefixes)}


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first.double() - second.double()).abs().max()) if first.numel() else 0.0


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Change]:
    names = [*first, *(name for name in second if name not in first)]
    pairs = {name: (first.get(name, ABSENT), second.get(name, ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by dotted path; lists count as leaves."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
