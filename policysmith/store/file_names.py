"""Which file of a store is what: `store.json`, `records/<id>.json`, `tags/<tag>/<id>`, `objects/<2>/<hash>.<suffix>`.

In: ids and tags. Out: names of files, and back. Records and tags are the truth; whatever else there is follows from it.
"""

from __future__ import annotations

import re

__all__ = [
    "MARK",
    "MARK_CONTENT",
    "RECORDS",
    "TAGS",
    "id_of",
    "record_name",
    "tag_content",
    "tag_name",
    "tag_of",
]

MARK, MARK_CONTENT = "store.json", b'{"format": 1, "kind": "policysmith store"}\n'
RECORDS, TAGS = "records", "tags"
RECORD = re.compile(rf"{RECORDS}/([0-9a-f]{{64}})\.json")
TAG = re.compile(rf"{TAGS}/([^/]+)/([0-9a-f]{{64}})")


def record_name(id: str) -> str:
    """The file of a record."""
    return f"{RECORDS}/{id}.json"


def id_of(name: str) -> str | None:
    """The record whose file has that name; None for other files."""
    match = RECORD.fullmatch(name)
    return match[1] if match else None


def tag_name(tag: str, id: str) -> str:
    """The file that says that a record has a tag."""
    return f"{TAGS}/{tag}/{id}"


def tag_content(tag: str, id: str) -> bytes:
    """What it holds."""
    return f"{tag} {id}\n".encode()


def tag_of(name: str) -> tuple[str, str] | None:
    """Tag and record that a file's name tells; None for other files."""
    match = TAG.fullmatch(name)
    return (match[1], match[2]) if match else None
