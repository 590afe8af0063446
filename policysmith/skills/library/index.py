"""What a library's index knows: skills, versions, heads and who depends on whom, in SQLite.

In: what the files say. Out: rows by skill. Everything follows from the files and can be read from them again; `pending`
names experts whose files somebody is changing, or was when he was killed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["SCHEMA", "SCHEMA_VERSION", "SkillRecord", "VersionRecord"]

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE skills (expert INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, head TEXT);
CREATE TABLE versions (expert INTEGER, version TEXT, frames INTEGER NOT NULL, status TEXT NOT NULL, run TEXT,
    created TEXT NOT NULL, about TEXT NOT NULL, PRIMARY KEY (expert, version)) WITHOUT ROWID;
CREATE TABLE parents (expert INTEGER, version TEXT, parent TEXT, PRIMARY KEY (expert, version, parent)) WITHOUT ROWID;
CREATE TABLE scores (expert INTEGER, version TEXT, skill TEXT, score REAL NOT NULL,
    PRIMARY KEY (expert, version, skill)) WITHOUT ROWID;
CREATE TABLE heads (expert INTEGER, position INTEGER, version TEXT NOT NULL, created TEXT NOT NULL,
    reason TEXT NOT NULL, run TEXT, PRIMARY KEY (expert, position)) WITHOUT ROWID;
CREATE TABLE branches (expert INTEGER, name TEXT, version TEXT NOT NULL, PRIMARY KEY (expert, name)) WITHOUT ROWID;
CREATE TABLE dependencies (expert INTEGER, skill TEXT, PRIMARY KEY (expert, skill)) WITHOUT ROWID;
CREATE TABLE pending (expert INTEGER PRIMARY KEY);
"""
SKILLS = """
SELECT s.expert, s.name, s.head, v.frames, c.score, (SELECT COUNT(*) FROM versions n WHERE n.expert = s.expert)
FROM skills s LEFT JOIN versions v ON v.expert = s.expert AND v.version = s.head
LEFT JOIN scores c ON c.expert = s.expert AND c.version = s.head AND c.skill = s.name
"""


@dataclass(frozen=True)
class SkillRecord:
    """A skill: its expert's index, its head (None: not trained yet), the head's frames and score, and its versions."""

    name: str
    expert: int
    head: str | None
    frames: int | None
    score: float | None
    versions: int
    dependencies: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The record as plain data for JSON."""
        return {**asdict(self), "dependencies": list(self.dependencies)}


@dataclass(frozen=True)
class VersionRecord:
    """A version of a skill's expert. `frames` trained it in all; `scores` are by skill; `branches` are its names."""

    skill: str
    expert: int
    version: str
    parents: tuple[str, ...]
    frames: int
    scores: Mapping[str, float]
    status: str
    run: str | None
    created: str
    is_head: bool
    branches: tuple[str, ...] = ()
    trained_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def short(self) -> str:
        """The first digits of the version: enough for people, and a selector."""
        return self.version[:12]

    def describe(self) -> dict[str, Any]:
        """The record as plain data for JSON."""
        return {**asdict(self), "parents": list(self.parents), "branches": list(self.branches)}


def expert_of(connection: sqlite3.Connection, name: str) -> int | None:
    """A skill's expert."""
    row = connection.execute("SELECT expert FROM skills WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def name_of(connection: sqlite3.Connection, expert: int) -> str | None:
    """An expert's skill."""
    row = connection.execute("SELECT name FROM skills WHERE expert = ?", (expert,)).fetchone()
    return None if row is None else str(row[0])


def next_expert(connection: sqlite3.Connection) -> int:
    """The index after the highest."""
    return int(connection.execute("SELECT COALESCE(MAX(expert), -1) + 1 FROM skills").fetchone()[0])


def put_skill(connection: sqlite3.Connection, expert: int, name: str) -> None:
    """Know of a skill; its head comes with its files."""
    connection.execute("INSERT OR IGNORE INTO skills (expert, name) VALUES (?, ?)", (expert, name))


def trained_skills(connection: sqlite3.Connection, names: Iterable[str] | None) -> Iterator[tuple[str, int]]:
    """Names and experts of skills that have a head, of all or of these names."""
    if names is None:
        yield from connection.execute("SELECT name, expert FROM skills WHERE head IS NOT NULL ORDER BY expert")
        return
    for name in dict.fromkeys(names):
        yield from connection.execute("SELECT name, expert FROM skills WHERE name = ? AND head IS NOT NULL", (name,))


def known_versions(connection: sqlite3.Connection, expert: int) -> set[str]:
    """The versions of an expert that the index has."""
    return {version for (version,) in connection.execute("SELECT version FROM versions WHERE expert = ?", (expert,))}


def put_version(connection: sqlite3.Connection, expert: int, version: str, metadata: Mapping[str, Any]) -> None:
    """Know of a version what its metadata says."""
    about = metadata.get("about", {})
    columns = (about.get("status", "trained"), about.get("run"), about.get("created", ""), json.dumps(about))
    row = (expert, version, metadata["frames"], *columns)
    connection.execute("INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    parents = [(expert, version, parent) for parent in metadata["parents"]]
    connection.executemany("INSERT OR REPLACE INTO parents VALUES (?, ?, ?)", parents)
    scores = [(expert, version, skill, score) for skill, score in about.get("scores", {}).items()]
    connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)", scores)
    if "dependencies" in about:
        connection.execute("DELETE FROM dependencies WHERE expert = ?", (expert,))
        pairs = [(expert, skill) for skill in about["dependencies"]]
        connection.executemany("INSERT OR IGNORE INTO dependencies VALUES (?, ?)", pairs)


def remove_version(connection: sqlite3.Connection, expert: int, version: str) -> None:
    """Forget a version."""
    for table in ("versions", "parents", "scores"):
        connection.execute(f"DELETE FROM {table} WHERE expert = ? AND version = ?", (expert, version))


def put_heads(
    connection: sqlite3.Connection,
    expert: int,
    moves: Sequence[tuple[str, str, str, str | None]],
    branches: Mapping[str, str],
) -> None:
    """Know of every move of a head (version, created, reason, run), and of branches."""
    for table in ("heads", "branches"):
        connection.execute(f"DELETE FROM {table} WHERE expert = ?", (expert,))
    rows = [(expert, position, *move) for position, move in enumerate(moves)]
    connection.executemany("INSERT INTO heads VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.executemany("INSERT INTO branches VALUES (?, ?, ?)", [(expert, *pair) for pair in branches.items()])
    head = moves[-1][0] if moves else None
    connection.execute("UPDATE skills SET head = ? WHERE expert = ?", (head, expert))


def skills(connection: sqlite3.Connection, name: str | None = None) -> list[SkillRecord]:
    """Every skill, or that of one name, in the order of their experts."""
    where, values = ("", ()) if name is None else (" WHERE s.name = ?", (name,))
    rows = connection.execute(f"{SKILLS}{where} ORDER BY s.expert", values).fetchall()
    depends: dict[int, list[str]] = {}
    only = "" if name is None else " WHERE expert = (SELECT expert FROM skills WHERE name = ?)"
    pairs = connection.execute(f"SELECT expert, skill FROM dependencies{only} ORDER BY skill", values)
    for expert, skill in pairs:
        depends.setdefault(expert, []).append(skill)
    return [SkillRecord(name, expert, head, frames, score, count, tuple(depends.get(expert, ())))
            for expert, name, head, frames, score, count in rows]  # fmt: skip


def versions(connection: sqlite3.Connection, expert: int) -> list[VersionRecord]:
    """Every version of an expert, the oldest first."""
    name, head = connection.execute("SELECT name, head FROM skills WHERE expert = ?", (expert,)).fetchone()
    parents, scores, branches = (
        _grouped(connection.execute(f"SELECT {columns} FROM {table} WHERE expert = ? ORDER BY 1, 2", (expert,)))
        for table, columns in (
            ("parents", "version, parent"),
            ("scores", "version, skill, score"),
            ("branches", "version, name"),
        )
    )
    rows = connection.execute("SELECT version, frames, status, run, created, about FROM versions WHERE expert = ? "
                              "ORDER BY created, version", (expert,))  # fmt: skip
    return [
        VersionRecord(
            name,
            expert,
            version,
            tuple(parent for (parent,) in parents.get(version, ())),
            frames,
            dict(scores.get(version, ())),
            status,
            run,
            created,
            version == head,
            tuple(branch for (branch,) in branches.get(version, ())),
            json.loads(about).get("trained_with", {}),
        )
        for version, frames, status, run, created, about in rows
    ]


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[str, list[tuple[Any, ...]]]:
    """The rest of each row by its first column."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for first, *rest in rows:
        found.setdefault(first, []).append(tuple(rest))
    return found
