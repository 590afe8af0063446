"""What a store says of one policy: a small JSON file, named by its own hash and never changed.

In: what a save was told. Out: bytes and their name; and from bytes, checked against the name, a `PolicyRecord`.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from policysmith.errors import CheckpointError
from policysmith.store.json_files import damaged, json_bytes, parsed, sha256, version_of
from policysmith.store.schemas import Record, checked

__all__ = ["FORMAT", "PolicyRecord", "checked_metrics", "checked_name", "checked_tags", "decode_record", "make_record"]

FORMAT = 1
SHORT = 12
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
METRIC = re.compile(r"[^\s:,#]{1,100}")


@dataclass(frozen=True)
class PolicyRecord:
    """One policy of a store. `id` is the hash of its record, `config` that of its configuration.

    `components` says of each component its type, role, number of parameters, and the hash and size of its weights;
    `tags` are those at the time of asking, everything else stays as it was saved. `sequence` counts the saves.
    """

    id: str
    name: str
    created: datetime
    step: int | None
    epoch: int | None
    metrics: Mapping[str, float]
    parents: tuple[str, ...]
    config: str
    components: Mapping[str, Mapping[str, Any]]
    policysmith: str
    format: int
    body: bytes = field(repr=False)
    tags: tuple[str, ...] = ()
    sequence: int = 0

    @property
    def short(self) -> str:
        """The first digits of `id`: enough for people, and a selector."""
        return self.id[:SHORT]

    @property
    def objects(self) -> dict[str, int]:
        """Hash → bytes of every file of weights, without the configuration; shared ones count once."""
        return {c["sha256"]: c["size"] for c in self.components.values() if "sha256" in c}

    @property
    def age(self) -> str:
        """A text that sorts as the records came: by their sequence, and by the clock where that is the same.

        The clock of a machine may go back; records of earlier versions have no sequence and come first.
        """
        return f"{self.sequence:012d} {self.created.isoformat(timespec='microseconds')}"

    @property
    def parameters(self) -> int:
        """How many the policy has; shared ones count once."""
        return sum(c["parameters"] for c in self.components.values() if "shares" not in c)

    def describe(self) -> dict[str, Any]:
        """The record as plain data for JSON, with `id` and `tags`; metrics that are not finite are None."""
        metrics = {name: value if math.isfinite(value) else None for name, value in self.metrics.items()}
        said = {key: value for key, value in json.loads(self.body).items() if key != "nonce"}
        return {"id": self.id, **said, "metrics": metrics, "tags": list(self.tags)}


def make_record(
    *,
    name: str,
    step: int | None,
    epoch: int | None,
    metrics: Mapping[str, float],
    parents: tuple[str, ...],
    config: str,
    components: Mapping[str, Mapping[str, Any]],
    tags: tuple[str, ...],
    sequence: int,
) -> PolicyRecord:
    """A new record, made now; two of the same policy differ. `sequence` is greater than that of every record before."""
    said = {
        "format": FORMAT,
        "policysmith": version_of("policysmith"),
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "sequence": sequence,
        "step": step,
        "epoch": epoch,
        "metrics": metrics,
        "parents": list(parents),
        "config": config,
        "components": components,
        "nonce": secrets.token_hex(8),
    }
    body = json_bytes(said, "record")
    return decode_record(sha256(body), body, "record", tags)


def decode_record(id: str, body: bytes, file: str, tags: tuple[str, ...] = ()) -> PolicyRecord:
    """The record that `body` is, if it is the one named `id`; raises `CheckpointError` naming `file`."""
    if sha256(body) != id:
        raise damaged(file, "its sha256 is not its name")
    said = parsed(file, body)
    found = said.get("format")
    if not isinstance(found, int) or found > FORMAT:
        reason = f"a record of format {found!r}, and this policysmith knows up to {FORMAT}"
        raise CheckpointError(f"{file}: {reason}; pip install --upgrade policysmith")
    checked(file, said, Record)
    return PolicyRecord(
        id,
        said["name"],
        datetime.fromisoformat(said["created"]),
        said["step"],
        said["epoch"],
        said["metrics"],
        tuple(said["parents"]),
        said["config"],
        said["components"],
        said["policysmith"],
        found,
        body,
        tuple(sorted(tags)),
        said.get("sequence", 0),
    )


def checked_name(name: object) -> str:
    """The name, if it can be one; raises `CheckpointError`."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CheckpointError(f"a policy can't be named {name!r}: use letters, digits, '.', '_', '-' and '/'")
    return name


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags, sorted, if they can be ones; raises `CheckpointError`."""
    if isinstance(tags, str):
        raise CheckpointError(f"tags are a sequence of texts, found the text {tags!r}: write [{tags!r}]")
    found = sorted(set(tags))
    for tag in found:
        if not isinstance(tag, str) or not TAG.fullmatch(tag):
            raise CheckpointError(f"{tag!r} can't be a tag: use letters, digits, '.', '_' and '-'")
    return tuple(found)


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats, from numbers and anything that turns into one; raises `CheckpointError`."""
    checked = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not METRIC.fullmatch(name):
            raise CheckpointError(f"a metric can't be named {name!r}: leave out spaces, ':', ',' and '#'")
        try:
            checked[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise CheckpointError(f"metrics.{name}: {value!r} is no number") from None
    return checked
