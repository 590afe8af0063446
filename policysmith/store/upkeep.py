"""Looking after a store: finding what is damaged, and removing what nothing refers to.

In: the parts of a store. Out: problems by file, and what a clean-up removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from policysmith.errors import CheckpointError
from policysmith.store.catalogue import IndexedCatalogue, read_record, readable_records, tags_on_disk
from policysmith.store.database import DatabaseDamaged
from policysmith.store.file_names import (
    MARK,
    MARK_CONTENT,
    RECORDS,
    TAGS,
    id_of,
    record_name,
    tag_content,
    tag_of,
)
from policysmith.store.objects import CONFIG, FOLDER, WEIGHTS, Objects, hash_of
from policysmith.store.policy_record import PolicyRecord
from policysmith.store.record_index import rows_of
from policysmith.store.storage import TEMPORARY, Storage

__all__ = ["Cleaned", "StoreProblem", "clean", "index_problems", "verify"]

ID_COLUMN = {"records": 0, "bodies": 0, "metrics": 3, "tags": 1}


@dataclass(frozen=True)
class StoreProblem:
    """A file of a store that is not as it should be, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class Cleaned:
    """What a clean-up removed: files and their bytes."""

    files: tuple[str, ...]
    bytes: int


def verify(storage: Storage, objects: Objects) -> list[StoreProblem]:
    """Every problem of every file: all are read and hashed."""
    problems = [*_mark_problems(storage)]
    records: list[PolicyRecord] = []
    for name in storage.names(RECORDS):
        id = id_of(name)
        if id is None:
            problems.append(StoreProblem(storage.shown(name), "is no record; move it away"))
            continue
        try:
            records.append(read_record(storage, id))
        except CheckpointError as error:
            problems.append(_problem(storage, name, error))
    problems += _tag_problems(storage)
    return problems + _object_problems(storage, objects, records)


def index_problems(storage: Storage, catalogue: IndexedCatalogue) -> list[StoreProblem]:
    """Whether the index says of every readable record what that says; for who has the store's lock alone."""
    file, remedy = str(catalogue.index.file), "build it again: PolicyStore(…).reindex()"
    try:
        found = catalogue.index.dump()
    except DatabaseDamaged:
        return [StoreProblem(file, f"is missing or damaged; {remedy}")]
    tags = tags_on_disk(storage)
    records = list(readable_records(storage, filter(None, map(id_of, storage.names(RECORDS)))))
    wanted, listed = rows_of(records), {record.id for record in records}
    problems = []
    for table, rows in wanted.items():
        there = [row for row in found[table] if row[ID_COLUMN[table]] in listed]
        if table == "tags":  # it may know of tags whose files are gone
            there = [row for row in there if row[0] in tags.get(str(row[1]), ())]
        if there != rows:
            problems.append(StoreProblem(file, f"its table {table!r} is not what the records say; {remedy}"))
    return problems


def clean(storage: Storage, grace: float, dry: bool) -> Cleaned:
    """Remove objects that no record refers to, tags of no record, and what killed saves left.

    Nothing that is younger than `grace` seconds is touched: it may belong to a save under way. Raises
    `CheckpointError` where a record cannot be read, for what that refers to is not known.
    """
    records = [read_record(storage, id) for id in filter(None, map(id_of, storage.names(RECORDS)))]
    kept = {digest for record in records for digest in (record.config, *record.objects)}
    listed = {record.id for record in records}
    names = [name for name in storage.names(FOLDER) if (digest := hash_of(name)) and digest not in kept]
    names += [name for name in storage.names(TAGS) if (found := tag_of(name)) and found[1] not in listed]
    names += storage.names(TEMPORARY)
    removed, size = [], 0
    for name in names:
        with suppress(CheckpointError):  # another clean-up was faster
            if grace and storage.age(name) < grace:
                continue
            size += storage.size(name)
            if not dry:
                storage.remove(name)
            removed.append(name)
    return Cleaned(tuple(removed), size)


def _mark_problems(storage: Storage) -> Iterator[StoreProblem]:
    try:
        if storage.read(MARK) != MARK_CONTENT:
            yield StoreProblem(storage.shown(MARK), f"is damaged: it should hold {MARK_CONTENT.decode().strip()}")
    except CheckpointError as error:
        yield _problem(storage, MARK, error)


def _tag_problems(storage: Storage) -> Iterator[StoreProblem]:
    for name in storage.names(TAGS):
        found = tag_of(name)
        if found is None:
            yield StoreProblem(storage.shown(name), "is no tag; move it away")
            continue
        try:
            if storage.read(name) != tag_content(*found):
                yield StoreProblem(storage.shown(name), "is damaged: it does not hold its tag; tag the policy anew")
        except CheckpointError as error:
            if storage.exists(record_name(found[1])):
                yield _problem(storage, name, error)


def _object_problems(storage: Storage, objects: Objects, records: Iterable[PolicyRecord]) -> list[StoreProblem]:
    users: dict[str, list[str]] = {}
    for record in records:
        for digest, suffix in ((record.config, CONFIG), *((digest, WEIGHTS) for digest in record.objects)):
            users.setdefault(objects.name(digest, suffix), []).append(record.short)
    problems = []
    for name in sorted({*users, *storage.names(FOLDER)}):
        named = hash_of(name)
        if named is None:
            problems.append(StoreProblem(storage.shown(name), "is no object; move it away"))
            continue
        try:
            objects.get(named, name[name.rindex(".") :])
        except CheckpointError as error:
            of = f" (of {', '.join(users[name][:3])}{', …' if len(users[name]) > 3 else ''})" if name in users else ""
            problem = _problem(storage, name, error)
            problems.append(StoreProblem(problem.file, problem.reason + of))
    return problems


def _problem(storage: Storage, name: str, error: CheckpointError) -> StoreProblem:
    file = storage.shown(name)
    return StoreProblem(file, str(error).removeprefix(f"{file}: "))
