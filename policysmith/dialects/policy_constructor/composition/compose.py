"""A configuration of schema version 1 is told from others, and composed: defaults, templates, `${}`.

In: a source as it was read. Out: a `Document`, or one error with every problem.
"""

from __future__ import annotations

from pathlib import Path as FilePath

from policysmith.config.defaults import read_file, with_defaults
from policysmith.config.interpolate import interpolate
from policysmith.config.load import Document, Source, bounded, to_document
from policysmith.config.located_data import Findings, Node, Refused
from policysmith.dialects.policy_constructor.composition.merge import Merger
from policysmith.dialects.policy_constructor.composition.template_expansion import expand

__all__ = ["finish_v1", "is_v1"]

OURS = ("format", "components")


def is_v1(source: Source) -> bool:
    """Whether a source is of schema version 1; a file that tells nothing itself is what its `defaults` are."""
    return _is_v1(source.root, source.directory, [])


def _is_v1(root: Node, directory: FilePath, seen: list[FilePath]) -> bool:
    entries = root.value if isinstance(root.value, dict) else {}
    if "schema_version" in entries or any(key in entries for key in OURS):
        return "schema_version" in entries
    if "model" in entries and isinstance(entries["model"].value, dict):
        return any(key in entries["model"].value for key in ("sequential", "graph"))
    names = entries["defaults"].value if "defaults" in entries else []
    files = [directory / node.value for node in names if isinstance(node.value, str)] if isinstance(names, list) else []
    for file in files:
        if file.absolute() in seen or not file.is_file():
            continue
        seen.append(file.absolute())
        try:
            base = read_file(file, Findings())
        except Refused:
            continue
        if base and _is_v1(base, file.parent, seen):
            return True
    return False


def finish_v1(source: Source, findings: Findings) -> Document:
    """The configuration that a source stands for; raises `ConfigError` with everything found."""
    return to_document(source, lambda: _composed(source, findings), findings)


def _composed(source: Source, findings: Findings) -> Node:
    merger = Merger(findings)
    root = with_defaults(source.root, source.directory, findings, source.file, merger.merge)
    root = bounded(merger.settled(root), findings)
    if findings.incomplete:
        findings.raise_any()
    root = bounded(merger.settled(expand(root, merger, findings), last=True), findings)
    return bounded(interpolate(root, findings), findings)
