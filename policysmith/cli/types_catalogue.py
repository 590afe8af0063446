"""What types there are, told without importing torch: a file that is written when the types are first asked for.

In: the installed package and plugins. Out: every type with its options, and the JSON Schema. The file is of one version
of the package, its plugins, torch and Python; any of them changed, it is written anew. Where it can't be written, the
types are imported each time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypedDict

import policysmith

__all__ = ["CatalogueData", "TypeData", "catalogue", "matching"]

PLUGIN_GROUP = "policysmith.plugins"
ROOM = "policysmith.skills.registered_types"  # the last room of types: once it is imported, all are here


class TypeData(TypedDict):
    """One registered type: `options` maps each to its JSON Schema with description and default."""

    slot: str
    name: str
    summary: str
    options: dict[str, dict[str, Any]]


class CatalogueData(TypedDict):
    """All that commands tell of types: the slots in their order, the types, and the schema of experiment files."""

    slots: list[str]
    types: list[TypeData]
    schema: dict[str, Any]


def catalogue(plugins: bool = False) -> CatalogueData:
    """The types of the default registry; `plugins` says that this command line registered more."""
    if plugins or ROOM in sys.modules:  # the types are here already, perhaps others than in the file
        return _imported()
    file = _folder() / f"types-{_key()}.json"
    with suppress(OSError, ValueError):
        found: CatalogueData = json.loads(file.read_text(encoding="utf-8"))
        return found
    data = _imported()
    with suppress(OSError):
        _write(file, json.dumps(data, ensure_ascii=False))
    return data


def matching(data: CatalogueData, pattern: str = "*", slot: str | None = None) -> list[TypeData]:
    """The types whose name matches a shell pattern, by slot and name."""
    return [t for t in data["types"] if slot in (None, t["slot"]) and fnmatchcase(t["name"], pattern)]


def _imported() -> CatalogueData:
    """The catalogue of the types that importing registers."""
    from policysmith import api
    from policysmith.config.json_schema import experiment_schema, type_options
    from policysmith.registry import SLOTS, default_registry

    types: list[TypeData] = []
    for info in api.list_types():
        options = type_options(default_registry.entry(info.slot, info.name))
        types.append({"slot": info.slot, "name": info.name, "summary": info.summary, "options": options})
    return {"slots": list(SLOTS), "types": types, "schema": experiment_schema(default_registry)}


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "policysmith"


def _key() -> str:
    """A hash of all that the catalogue follows from."""
    return hashlib.blake2b("\n".join(_facts()).encode(), digest_size=12).hexdigest()


def _facts() -> Iterator[str]:
    yield policysmith.__version__
    yield sys.version
    for package in ("torch", "pydantic"):  # layers of torch.nn are types, and pydantic writes their schemas
        with suppress(importlib.metadata.PackageNotFoundError):
            yield f"{package} {importlib.metadata.version(package)}"
    yield from _files(Path(policysmith.__file__).parent)
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        yield f"{point.value} {point.dist.version if point.dist else ''}"
        found = importlib.util.find_spec(point.module.partition(".")[0])  # of a top-level name: imports nothing
        for folder in (found.submodule_search_locations or []) if found else []:
            yield from _files(Path(folder))


def _files(folder: Path) -> Iterator[str]:
    """When each source file changed: in a development install the version stays while they change."""
    for file in sorted(folder.rglob("*.py")):
        yield f"{file} {file.stat().st_mtime_ns}"


def _write(file: Path, text: str) -> None:
    """Whole or not at all: another command may read at the same time. Older catalogues go."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix="types-", suffix=".tmp")
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
    Path(temporary).replace(file)
    for old in file.parent.glob("types-*.json"):
        if old != file:
            old.unlink(missing_ok=True)
