"""Which policies a store has, in the order that a query asks for: by an index beside it, or by reading its records.

In: a query. Out: ids, and records by id. Both catalogues answer alike; the records and tags on disk decide.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from policysmith.errors import CheckpointError
from policysmith.store.database import DatabaseDamaged
from policysmith.store.file_names import RECORDS, TAGS, id_of, record_name, tag_name, tag_of
from policysmith.store.locks import Lock
from policysmith.store.policy_record import PolicyRecord, decode_record
from policysmith.store.record_index import Index, Overview
from policysmith.store.selectors import PREFIX, Query
from policysmith.store.storage import Storage

__all__ = ["Catalogue", "IndexedCatalogue", "ListedCatalogue", "read_record", "readable_records", "tags_on_disk"]

T = TypeVar("T")
LOG = logging.getLogger(__name__)
Pairs = Iterable[tuple[str, str]]


class Catalogue(Protocol):
    """What a store asks. It is told of changes before a file appears, and after it is gone."""

    def search(self, query: Query, seed: int | None = None) -> list[PolicyRecord]:
        """The records that a query asks for, with their tags of now; `seed` is for random ones."""
        ...

    def overview(self) -> Overview:
        """Names, tags and metrics, for messages."""
        ...

    def newest(self) -> int:
        """The highest sequence of a record; 0 if there is none."""
        ...

    def add(self, record: PolicyRecord) -> None:
        """A record that will be there."""
        ...

    def add_tags(self, pairs: Pairs) -> None:
        """Pairs of tag and id that will be there."""
        ...

    def remove(self, ids: Sequence[str], pairs: Pairs) -> None:
        """Records and tags that are gone."""
        ...

    def changed(self, act: Callable[[], T]) -> T:
        """What `act` gives, which changes the store; it may run twice."""
        ...


def read_record(storage: Storage, id: str, tags: Iterable[str] = ()) -> PolicyRecord:
    """A record as it lies on disk; raises `CheckpointError` naming its file."""
    name = record_name(id)
    return decode_record(id, storage.read(name), storage.shown(name), tuple(tags))


def readable_records(storage: Storage, ids: Iterable[str]) -> Iterator[PolicyRecord]:
    """Records with their tags; those that cannot be read are left out, with a warning in the log."""
    tags = tags_on_disk(storage)
    for id in ids:
        try:
            yield read_record(storage, id, tags.get(id, ()))
        except CheckpointError as error:
            LOG.warning("a policy is left out: %s", error)


def tags_on_disk(storage: Storage) -> dict[str, list[str]]:
    """Id → tags."""
    found: dict[str, list[str]] = {}
    for tag, id in filter(None, map(tag_of, storage.names(TAGS))):
        found.setdefault(id, []).append(tag)
    return found


class IndexedCatalogue:
    """By the index of a local store, which is compared with the records at the first use, and mended or rebuilt."""

    def __init__(self, storage: Storage, index: Index, lock: Lock) -> None:
        self.storage, self.index, self._lock = storage, index, lock
        self._synced, self._syncing = False, threading.Lock()

    def search(self, query: Query, seed: int | None = None) -> list[PolicyRecord]:
        """Records as the index holds them, if their files are there and their hashes say that they are the ones."""

        def alive(id: str) -> bool:
            names = [record_name(id), *(tag_name(tag, id) for tag in query.tags)]
            return all(self.storage.exists(name) for name in names)

        def ask() -> list[PolicyRecord]:
            rows = self.index.find(query, alive, lambda ids: _drawn(ids, query, seed))
            return [self._decoded(*row) for row in rows]

        return self._asked(ask)

    def overview(self) -> Overview:
        """Names, tags and metrics."""
        return self._asked(self.index.overview)

    def newest(self) -> int:
        """The highest sequence of a record; raises `DatabaseDamaged`, as it is asked within `changed`."""
        self._sync()
        return self.index.newest()

    def add(self, record: PolicyRecord) -> None:
        """A record that will be there; raises `DatabaseDamaged`."""
        self.index.add([record])

    def add_tags(self, pairs: Pairs) -> None:
        """Tags that will be there; raises `DatabaseDamaged`."""
        self.index.add_tags(pairs)

    def remove(self, ids: Sequence[str], pairs: Pairs) -> None:
        """What is gone; raises `DatabaseDamaged`."""
        self.index.remove(ids)
        self.index.remove_tags(pairs)

    def rebuild(self) -> int:
        """Make the index say what the records say; waits for saves under way. Returns the number of records."""
        with self._lock.alone():
            return self.rebuild_alone()

    def rebuild_alone(self) -> int:
        """The same for who has the store's lock alone already."""
        ids = [id for id in map(id_of, self.storage.names(RECORDS)) if id]
        records = list(readable_records(self.storage, ids))
        self.index.rebuild(records)
        return len(records)

    def changed(self, act: Callable[[], T]) -> T:
        """What `act` gives, which changes the store together with others; if the index is damaged it acts again."""
        try:
            with self._lock.shared():
                return act()
        except DatabaseDamaged:
            return self._mended(act)

    def prune_alone(self) -> None:
        """Forget what is not there; for who has the store's lock alone."""
        ids = set(filter(None, map(id_of, self.storage.names(RECORDS))))
        tags = {(tag, id) for id, found in tags_on_disk(self.storage).items() for tag in found}
        try:
            known, known_tags = self.index.known()
            self.remove(sorted(known - ids), sorted(known_tags - tags))
        except DatabaseDamaged:
            self.rebuild_alone()

    def _decoded(self, id: str, body: bytes, tags: Iterable[str]) -> PolicyRecord:
        there = [tag for tag in tags if self.storage.exists(tag_name(tag, id))]
        try:
            return decode_record(id, body, str(self.index.file), tuple(there))
        except CheckpointError:
            raise DatabaseDamaged from None

    def _asked(self, ask: Callable[[], T]) -> T:
        """The answer of an index that knows every record."""

        def synced() -> T:
            self._sync()
            return ask()

        try:
            return synced()
        except DatabaseDamaged:
            return self._mended(synced)

    def _mended(self, act: Callable[[], T]) -> T:
        """What `act` gives with the store alone and an index that is whole; `act` must not take the store's lock."""
        with self._lock.alone():
            self._synced = False
            with suppress(DatabaseDamaged):
                return act()  # another process has mended it meanwhile
            self.rebuild_alone()
            try:
                return act()
            except DatabaseDamaged as error:
                raise CheckpointError(f"{self.index.file}: is damaged again after it was rebuilt") from error

    def _sync(self) -> None:
        """Learn of records and tags that came without the index, from a copy of files or before a power failure."""
        with self._syncing:
            if self._synced:
                return
            known, known_tags = self.index.known()
            listed = {id for id in map(id_of, self.storage.names(RECORDS)) if id}
            if missing := listed - known:
                self.index.add(readable_records(self.storage, sorted(missing)))
            tags = {(tag, id) for id, found in tags_on_disk(self.storage).items() for tag in found}
            if strange := tags - known_tags:
                self.index.add_tags(sorted(strange))
            self._synced = True


class ListedCatalogue:
    """By the records themselves, which never change and so are read once; for stores that are not of this machine."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._records: dict[str, PolicyRecord] = {}

    def search(self, query: Query, seed: int | None = None) -> list[PolicyRecord]:
        """Records by listing the store."""
        tags = tags_on_disk(self.storage)
        found = [record for record in self._all() if _fits(record, query, tags.get(record.id, ()))]
        found.sort(key=lambda record: (record.age, record.id), reverse=True)
        if query.order == "metric":
            ranked = [record for record in found if not math.isnan(record.metrics.get(query.metric, math.nan))]
            found = sorted(ranked, key=lambda record: record.metrics[query.metric], reverse=not query.least)
        chosen = _drawn(found[: None if query.order == "random" else query.count], query, seed)
        return [replace(record, tags=tuple(sorted(tags.get(record.id, ())))) for record in chosen]

    def overview(self) -> Overview:
        """Names, tags and metrics."""
        records = self._all()
        return {
            "names": sorted({record.name for record in records}),
            "tags": sorted({tag for tags in tags_on_disk(self.storage).values() for tag in tags}),
            "metrics": sorted(
                {m for record in records for m, value in record.metrics.items() if not math.isnan(value)}
            ),
        }

    def newest(self) -> int:
        """The highest sequence of a record that can be read."""
        return max((record.sequence for record in self._all()), default=0)

    def add(self, record: PolicyRecord) -> None:
        """Nothing is kept beside the records."""

    def add_tags(self, pairs: Pairs) -> None:
        """Nothing is kept beside the tags."""

    def remove(self, ids: Sequence[str], pairs: Pairs) -> None:
        """Nothing is kept."""

    def changed(self, act: Callable[[], T]) -> T:
        """What `act` gives."""
        return act()

    def _all(self) -> list[PolicyRecord]:
        """Those that can be read; an unreadable one is tried again, for it may have been put right."""
        listed = [id for id in map(id_of, self.storage.names(RECORDS)) if id]
        if new := [id for id in listed if id not in self._records]:
            self._records.update((record.id, record) for record in readable_records(self.storage, new))
        return [self._records[id] for id in listed if id in self._records]


def _drawn(found: list[T], query: Query, seed: int | None) -> list[T]:
    """As many of them as a query for random ones wants; all of them for other queries."""
    if query.order != "random":
        return found
    return random.Random(seed).sample(found, min(query.count or 1, len(found)))


def _fits(record: PolicyRecord, query: Query, tags: Sequence[str]) -> bool:
    """Whether the record is what the query wants, its order apart."""
    return (
        query.name in (None, record.name)
        and set(query.tags) <= set(tags)
        and (query.prefix is None or record.id.startswith(query.prefix))
        and (query.word in (None, record.name) or _is_beginning(query.word, record.id))
    )


def _is_beginning(word: str | None, id: str) -> bool:
    return word is not None and PREFIX.fullmatch(word) is not None and id.startswith(word)
