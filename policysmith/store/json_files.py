"""Plain data in JSON files: written so that people can read it, read so that what is damaged is told.

In: mappings. Out: bytes, and the mappings again; the hash that names a file. Nothing here needs a tensor, so what only
lists policies or skills loads no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any

from policysmith.config.migrate import CURRENT_FORMAT
from policysmith.errors import CheckpointError

__all__ = ["check_format", "damaged", "json_bytes", "parsed", "sha256", "version_of"]

RESTORE = "restore it from a copy, or save the policy anew"


def json_bytes(value: Any, path: str = "") -> bytes:
    """Plain data as JSON that people can read; `path` is what messages call the whole.

    Numbers without an end are written as Python reads them, `Infinity` and `NaN`. Raises `CheckpointError`.
    """
    return (_json_text(value, path, "") + "\n").encode()


def _json_text(value: Any, path: str, indent: str) -> str:
    """A key a line; a list in one line unless it holds mappings or lists."""
    kind, inner = type(value), indent + "  "
    if kind is str or kind is int:  # most are, and asking what else they may be takes longer than writing them
        return quoted(value) if kind is str else str(value)
    if isinstance(value, Mapping) and value:
        _check_keys(value, path)
        lines = [f"{quoted(key)}: {_json_text(below, f'{path}.{key}', inner)}" for key, below in value.items()]
        return "{\n" + ",\n".join(inner + line for line in lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        lines = [_json_text(item, f"{path}.{index}", inner) for index, item in enumerate(value)]
        return "[\n" + ",\n".join(inner + line for line in lines) + f"\n{indent}]"
    try:
        return json.dumps(value)
    except TypeError:
        raise CheckpointError(
            f"{path}: {value!r} of type {kind.__name__} is not plain data; convert it to numbers and texts"
        ) from None


def _check_keys(value: Mapping[Any, Any], path: str) -> None:
    for key in value:
        if not isinstance(key, str):
            raise CheckpointError(f"{path}: the key {key!r} of type {type(key).__name__} must be a text")


def parsed(file: str | Path, content: bytes) -> dict[str, Any]:
    """The JSON object that a file holds; raises `CheckpointError` naming `file`."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"it is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise damaged(file, "it holds no JSON object")
    return data


def check_format(file: str | Path, data: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` for data of a format that is newer than ours."""
    found = data.get("format")
    if isinstance(found, int) and found > CURRENT_FORMAT:
        wanted = f"format {found} is newer than this policysmith understands ({CURRENT_FORMAT})"
        raise CheckpointError(f"{file}: {wanted}; pip install --upgrade policysmith")


def damaged(file: str | Path, reason: str) -> CheckpointError:
    """The error for a file that is not as it was written."""
    return CheckpointError(f"{file}: is damaged or was edited: {reason}; {RESTORE}")


def sha256(content: bytes) -> str:
    """As hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


@cache
def version_of(package: str) -> str:
    """The installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a copy of its sources
        return "unknown"
