"""Which versions have been an expert's head, in order, and what its branches are called: `heads.json` beside the head.

In: an expert's folder. Out: its history; a move of the head and its line in the history are one change on disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from policysmith.errors import SkillError
from policysmith.skills.experts.expert_versions import head_version, save_head, version_folder
from policysmith.store.files import find_directory, replace_file
from policysmith.store.json_files import check_format, json_bytes, parsed

__all__ = ["HeadMove", "Heads", "free_branch", "move_head", "name_branch", "now", "read_heads"]

HEADS = "heads.json"
BRANCH = re.compile(r"(?![0-9a-f]{4,64}\Z)(?!head\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,119}")


@dataclass(frozen=True)
class HeadMove:
    """A version became the head: when, by which run (if one), and why."""

    version: str
    created: str
    reason: str
    run: str | None = None


@dataclass(frozen=True)
class Heads:
    """Every move, the oldest first, and versions by the names of branches."""

    history: tuple[HeadMove, ...] = ()
    branches: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str | None:
        """The version that is the head now."""
        return self.history[-1].version if self.history else None


def read_heads(folder: Path) -> Heads:
    """The history of an expert; of one whose head nobody wrote down, that head alone."""
    file = find_directory(folder) / HEADS
    if not file.is_file():
        head = head_version(folder)
        return Heads() if head is None else Heads((HeadMove(head, "", "was there"),))
    said = parsed(file, file.read_bytes())
    check_format(file, said)
    return Heads(tuple(HeadMove(**move) for move in said["history"]), said["branches"])


def move_head(folder: Path, version: str, reason: str, run: str | None = None) -> None:
    """Make a version the head, all at once. Whoever calls holds the library's lock."""
    if not version_folder(folder, version).is_dir():
        raise SkillError(f"{folder}: has no version {version}")
    before = read_heads(folder)
    history = (*before.history, HeadMove(version, now(), reason, run))
    save_head(folder, version, {HEADS: _content(Heads(history, before.branches))})


def name_branch(folder: Path, name: str, version: str) -> None:
    """Give a version the name of a branch. Whoever calls holds the library's lock."""
    if not BRANCH.fullmatch(name):
        raise SkillError(f"a branch can't be named {name!r}: use letters, digits, '.', '_' and '-', and not a hash")
    before = read_heads(folder)
    if before.branches.get(name, version) != version:
        raise SkillError(f"{folder}: has a branch {name!r} already, of version {before.branches[name]}")
    replace_file(folder / HEADS, _content(Heads(before.history, {**before.branches, name: version})))


def free_branch(heads: Heads, stem: str, version: str) -> str:
    """The name that a version has, or a free one that begins like `stem`."""
    for name, named in heads.branches.items():
        if named == version:
            return name
    name, number = stem, 2
    while name in heads.branches:
        name, number = f"{stem}-{number}", number + 1
    return name


def now() -> str:
    """The time, as it is written down."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _content(heads: Heads) -> bytes:
    said = {"format": 1, "history": [asdict(move) for move in heads.history], "branches": dict(heads.branches)}
    return json_bytes(said, HEADS)
