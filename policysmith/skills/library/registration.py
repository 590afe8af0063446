"""What a library's files say, and the index of it: names of skills, versions of experts.

In: the library's folder. Out: numbers that belong to names for good, and an index that follows the files.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from policysmith.errors import SkillError
from policysmith.skills.experts.expert_versions import METADATA, read_metadata, version_folder, versions_of
from policysmith.skills.library import index
from policysmith.skills.library.head_history import read_heads
from policysmith.skills.runs.folder_names import expert_folder, skill_folder
from policysmith.store.files import sync_directory, write_synced
from policysmith.store.json_files import json_bytes, parsed

__all__ = ["claim", "expert_directory", "follow", "registered"]

NAMES = "names"


def expert_directory(root: Path, expert: int, skill: str) -> Path:
    """Where a skill's expert lies."""
    return Path(root, "skills", skill_folder(expert, skill), expert_folder(expert))


def claim(root: Path, expert: int, skill: str) -> str:
    """Give a number to a skill, if it is free; returns whose it is. One of any number of processes gets it."""
    file = root / NAMES / f"{expert}.json"
    file.parent.mkdir(exist_ok=True)
    fresh = file.with_name(f".{expert}-{secrets.token_hex(4)}")
    try:
        write_synced(fresh, json_bytes({"format": 1, "skill": skill, "expert": expert}))
        with suppress(FileExistsError):
            os.link(fresh, file)  # unlike a rename, it never takes another's place
            sync_directory(file.parent)
    finally:
        fresh.unlink(missing_ok=True)
    return str(parsed(file, file.read_bytes())["skill"])


def registered(root: Path) -> dict[int, str]:
    """Skills by number: those that were registered, and those whose experts lie there.

    Raises `SkillError` where one number belongs to two.
    """
    found = {}
    for file in (root / NAMES).glob("*.json"):
        said = parsed(file, file.read_bytes())
        found[int(said["expert"])] = str(said["skill"])
    for expert, skill in _trained(root):
        if claim(root, expert, found.setdefault(expert, skill)) != skill:
            raise SkillError(f"{root}: expert {expert} is {found[expert]!r}, but skills/ has it as {skill!r}")
    return found


def follow(connection: sqlite3.Connection, root: Path, expert: int, skill: str) -> None:
    """Let the index say of one expert what its files say. A version never changes: only new ones are read."""
    folder = expert_directory(root, expert, skill)
    there = set(versions_of(folder))
    known = index.known_versions(connection, expert)
    found = [(version, read_metadata(version_folder(folder, version))) for version in there - known]
    for version, said in sorted(found, key=lambda pair: pair[1].get("about", {}).get("created", "")):
        if (said["global_expert_idx"], said["skill_name"]) != (expert, skill):
            raise SkillError(f"{folder}: version {version} is of {said['skill_name']!r}, and not of {skill!r}")
        index.put_version(connection, expert, version, said)
    for version in known - there:
        index.remove_version(connection, expert, version)
    heads = read_heads(folder)
    moves = [(move.version, move.created, move.reason, move.run) for move in heads.history]
    index.put_heads(connection, expert, moves, heads.branches)


def _trained(root: Path) -> Iterator[tuple[int, str]]:
    """Number and skill of every expert that has a head or a version."""
    for folder in sorted((root / "skills").glob("*/expert_*_policy")):
        places = [folder, *(version_folder(folder, version) for version in versions_of(folder))]
        place = next((place for place in places if (place / METADATA).is_file()), None)
        if place is not None:
            said = read_metadata(place)
            yield said["global_expert_idx"], said["skill_name"]
