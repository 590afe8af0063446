"""What manifests, configurations and records must say, beyond their checksums: those prove no author right.

In: plain data out of a file. Out: the same data, or a `CheckpointError` that names the file and the first entry that is
wrong. Entries that are not listed here may be there: later versions add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NotRequired

from annotated_types import Ge
from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from policysmith.errors import CheckpointError

__all__ = ["Config", "Manifest", "Record", "checked"]

Count = Annotated[int, Ge(0)]
STRICT = ConfigDict(strict=True, extra="allow")


class FileRecord(TypedDict):
    """What a manifest says of a file."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    size: Count
    sha256: str


class ComponentRecord(TypedDict):
    """What a manifest or a record says of a component."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    type: str
    role: str | None
    parameters: Count
    sha256: NotRequired[str]
    size: NotRequired[Count]
    shares: NotRequired[str]


class Manifest(TypedDict):
    """`manifest.json`."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    format: Count
    files: dict[str, FileRecord]
    components: dict[str, ComponentRecord]
    checksum: str


class Config(TypedDict):
    """`config.json`."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    format: Count
    observation_space: dict[str, Any]
    action_space: dict[str, Any]
    experiment: dict[str, Any]


class Record(TypedDict):
    """A store's record of a policy."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    name: str
    created: str
    step: int | None
    epoch: int | None
    metrics: dict[str, float]
    parents: list[str]
    config: str
    components: dict[str, ComponentRecord]
    policysmith: str
    sequence: NotRequired[Count]


def checked(file: str | Path, data: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """The data, which has all that `schema` asks for; raises `CheckpointError` naming `file` and the entry."""
    try:
        _adapter(schema).validate_python(data)
        if schema is Record:
            _check_record(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{file}: {place!r}: {first['msg'].lower()}; no policysmith writes that") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}; no policysmith writes that") from None
    return dict(data)


def _check_record(record: Mapping[str, Any]) -> None:
    """What types alone do not say; raises `ValueError`."""
    try:
        datetime.fromisoformat(record["created"])
    except ValueError:
        raise ValueError("created: is no date") from None
    for name, component in record["components"].items():
        if "sha256" in component and "size" not in component:
            raise ValueError(f"components.{name}.size: field required")


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)
