"""An index of a local store in SQLite (WAL): what it says follows from records and tags, and can be built again.

In: records. Out: their ids in the order that a query asks for. It may know of records and tags that are not there any
more, or not yet; who asks says which ones are (`alive`).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from policysmith.store.database import Database, DatabaseDamaged
from policysmith.store.locks import Lock
from policysmith.store.policy_record import PolicyRecord
from policysmith.store.selectors import PREFIX, Query

__all__ = ["Index", "Overview", "rows_of"]

VERSION = 2
TABLES = ("records", "bodies", "metrics", "tags")  # bodies apart: rows that are only looked at stay small
SCHEMA = """
CREATE TABLE records (id TEXT PRIMARY KEY, name TEXT NOT NULL, age TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE bodies (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE INDEX by_age ON records (age, id);
CREATE INDEX by_name ON records (name, age);
CREATE TABLE metrics (metric TEXT, value REAL, age TEXT, id TEXT, PRIMARY KEY (metric, value, age, id))
    WITHOUT ROWID;
CREATE INDEX metrics_of ON metrics (id);
CREATE TABLE tags (tag TEXT, id TEXT, PRIMARY KEY (tag, id)) WITHOUT ROWID;
CREATE INDEX tags_of ON tags (id);
"""
Alive = Callable[[str], bool]
Choose = Callable[[list[str]], list[str]]
Row = tuple[str, bytes, list[str]]
Overview = dict[str, list[str]]


class Index:
    """The index in `file`. Every call opens it anew, so it may be used from any thread and after a fork."""

    def __init__(self, file: Path, lock: Lock) -> None:
        self.file = file
        self._database = Database(file, lock, SCHEMA, VERSION, synchronous="NORMAL")

    def find(self, query: Query, alive: Alive, choose: Choose) -> list[Row]:
        """Id, record as it was written, and tags it may have, of records that are alive and that `choose` takes.

        It is given ids in the query's order, no more than the query wants, or all of them where it wants random ones.
        """
        ids: list[str] = []
        with self._database.reading() as connection:
            for (id,) in connection.execute(*_sql(query)):
                if alive(id):
                    ids.append(id)
                    if query.order != "random" and len(ids) == query.count:
                        break
            return [(id, *_row(connection, id)) for id in choose(ids)]

    def known(self) -> tuple[set[str], set[tuple[str, str]]]:
        """All ids, and all pairs of tag and id."""
        with self._database.reading() as connection:
            ids = {id for (id,) in connection.execute("SELECT id FROM records")}
            return ids, set(connection.execute("SELECT tag, id FROM tags"))

    def newest(self) -> int:
        """The highest sequence of a record; 0 if there is none."""
        with self._database.reading() as connection:
            (age,) = connection.execute("SELECT MAX(age) FROM records").fetchone()
            return int(age.split()[0]) if age else 0

    def overview(self) -> Overview:
        """Names, tags and metrics."""
        with self._database.reading() as connection:
            return {
                kind: [text for (text,) in connection.execute(f"SELECT DISTINCT {column} FROM {table} ORDER BY 1")]
                for kind, column, table in (
                    ("names", "name", "records"),
                    ("tags", "tag", "tags"),
                    ("metrics", "metric", "metrics"),
                )
            }

    def add(self, records: Iterable[PolicyRecord]) -> None:
        """Know of records and their tags, all of them or none."""
        with self._database.writing() as connection:
            _insert(connection, records)

    def add_tags(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Know of pairs of tag and id."""
        with self._database.writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", pairs)

    def remove_tags(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Forget them."""
        with self._database.writing() as connection:
            connection.executemany("DELETE FROM tags WHERE tag = ? AND id = ?", pairs)

    def remove(self, ids: Iterable[str]) -> None:
        """Forget records, with their tags."""
        rows = [(id,) for id in ids]
        with self._database.writing() as connection:
            for table in TABLES:
                connection.executemany(f"DELETE FROM {table} WHERE id = ?", rows)

    def rebuild(self, records: Iterable[PolicyRecord]) -> None:
        """Hold these and nothing else. Nobody may write meanwhile; readers wait."""
        with self._database.replaced() as connection:
            _insert(connection, records)

    def dump(self) -> dict[str, list[tuple[object, ...]]]:
        """Every row of every table, after SQLite's own check; for `verify`."""
        with self._database.reading() as connection:
            if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise DatabaseDamaged
            return {table: sorted(connection.execute(f"SELECT * FROM {table}")) for table in TABLES}


def rows_of(records: Iterable[PolicyRecord]) -> dict[str, list[tuple[object, ...]]]:
    """The rows that an index of exactly these has, sorted: what `Index.dump` gives."""
    found: dict[str, list[tuple[object, ...]]] = {table: [] for table in TABLES}
    for record in records:
        found["records"].append((record.id, record.name, record.age))
        found["bodies"].append((record.id, record.body))
        ranked = {name: value for name, value in record.metrics.items() if not math.isnan(value)}
        found["metrics"] += [(name, float(value), record.age, record.id) for name, value in ranked.items()]
        found["tags"] += [(tag, record.id) for tag in record.tags]
    return {table: sorted(rows) for table, rows in found.items()}


def _row(connection: sqlite3.Connection, id: str) -> tuple[bytes, list[str]]:
    row = connection.execute("SELECT body FROM bodies WHERE id = ?", (id,)).fetchone()
    if row is None or not isinstance(row[0], bytes):
        raise DatabaseDamaged
    return row[0], [tag for (tag,) in connection.execute("SELECT tag FROM tags WHERE id = ?", (id,))]


def _insert(connection: sqlite3.Connection, records: Iterable[PolicyRecord]) -> None:
    for table, rows in rows_of(records).items():
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)


def _sql(query: Query) -> tuple[str, list[object]]:
    """The statement that gives ids in the query's order."""
    where, values = _conditions(query)
    if query.order != "metric":
        condition = f" WHERE {' AND '.join(where)}" if where else ""
        return f"SELECT r.id FROM records r{condition} ORDER BY r.age DESC, r.id DESC", values
    direction = "ASC" if query.least else "DESC"
    condition = " AND ".join(["m.metric = ?", *where])
    # CROSS JOIN: the metric's order is walked, and rows are looked up as they come
    return (
        f"SELECT r.id FROM metrics m CROSS JOIN records r ON r.id = m.id WHERE {condition} "
        f"ORDER BY m.value {direction}, m.age DESC, m.id DESC"
    ), [query.metric, *values]


def _conditions(query: Query) -> tuple[list[str], list[object]]:
    where: list[str] = []
    values: list[object] = []
    if query.name is not None:
        where.append("r.name = ?")
        values.append(query.name)
    for tag in query.tags:
        where.append("r.id IN (SELECT id FROM tags WHERE tag = ?)")
        values.append(tag)
    if query.prefix is not None:
        where.append("r.id >= ? AND r.id < ?")
        values += [query.prefix, f"{query.prefix}g"]
    if query.word is not None:
        hexadecimal = PREFIX.fullmatch(query.word) is not None
        where.append("(r.name = ? OR (r.id >= ? AND r.id < ?))" if hexadecimal else "r.name = ?")
        values += [query.word, query.word, f"{query.word}g"] if hexadecimal else [query.word]
    return where, values
