"""The file that an index is kept in: SQLite with a write-ahead log, opened anew for every use.

In: where it lies, and a lock. Out: transactions that wait for each other, in any number of threads and processes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

from policysmith.errors import CheckpointError
from policysmith.store.locks import Lock

__all__ = ["Database", "DatabaseDamaged"]

BUSY_SECONDS = 60.0
# What says that the file is not ours any more; other errors (busy, full, read-only) are the machine's.
BROKEN = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_MISMATCH,
}


class DatabaseDamaged(Exception):
    """The file is missing, damaged or of another version: make it again."""


class Database:
    """A database of one schema. Threads and forked processes may share the object: it holds no connection.

    `synchronous` is SQLite's: with `NORMAL` the latest changes may be lost with the machine's power, never the whole.
    """

    def __init__(
        self, file: Path, lock: Lock, schema: str, version: int, synchronous: Literal["FULL", "NORMAL"] = "FULL"
    ) -> None:
        self.file, self._lock, self._schema, self._version = file, lock, schema, version
        self._synchronous = synchronous
        self._address = f"{file.absolute().as_uri()}?mode=rw"

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the whole."""
        with self._open() as connection, _transaction(connection, "BEGIN"):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are all kept or none, after everybody else's."""
        with self._open() as connection, _transaction(connection, "BEGIN IMMEDIATE"):
            yield connection

    @contextmanager
    def replaced(self) -> Iterator[sqlite3.Connection]:
        """A new, empty database, which takes the old one's place in the end; others wait."""
        fresh = self.file.with_name(f"{self.file.name}.new")
        with self._lock.alone(), _translated(self.file):
            _unlink(fresh)
            with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"{self._schema}\nPRAGMA user_version = {self._version};")
                with _transaction(connection, "BEGIN IMMEDIATE"):
                    yield connection
            _unlink(self.file)
            fresh.replace(self.file)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with (
            self._lock.shared(),
            _translated(self.file),
            closing(sqlite3.connect(self._address, timeout=BUSY_SECONDS, isolation_level=None, uri=True)) as connection,
        ):
            if connection.execute("PRAGMA user_version").fetchone() != (self._version,):
                raise DatabaseDamaged
            if self._synchronous != "FULL":  # SQLite's own default
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            yield connection


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    """SQLite's errors as ours: one that a new database helps, or one that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF in BROKEN:
            raise DatabaseDamaged from error
        raise CheckpointError(f"{file}: {error}; check that it can be written and that the disk has room") from error


def _unlink(file: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
