"""How long a store of 100,000 policies takes to say which one a selector means.

In: nothing. Out: rows of the result table. The bar is a time, so the peer is that time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.harness import Row, duration, median_interval

if TYPE_CHECKING:
    from policysmith.store import PolicyRecord

COUNT, BAR, ROUNDS = 100_000, 0.010, 31


def store_lookup() -> list[Row]:
    """Records in their files, and in the index without a detour over them."""
    from policysmith.store import PolicyStore

    memory = Path("/dev/shm")  # where files come quickly; a lookup finds them in the page cache anyway
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        _fill(Path(folder))
        store = PolicyStore(folder)
        assert store.get("best:return").metrics["return"] == 1.0
        prefix = store.get("latest").short
        return [
            _row("best:return", lambda: store.get("best:return"), target=1.0),
            _row("latest", lambda: store.get("latest")),
            _row("top:10:return of one name in a hundred", lambda: store.find("top:10:return,name:run-7")),
            _row("by hash", lambda: store.get(prefix)),
        ]


def _fill(root: Path) -> None:
    """Write records and their index, without weights: nothing is loaded here."""
    from policysmith.store.file_names import MARK, MARK_CONTENT, RECORDS
    from policysmith.store.locks import Lock
    from policysmith.store.record_index import Index

    (root / RECORDS).mkdir()
    (root / MARK).write_bytes(MARK_CONTENT)
    Index(root / "index.sqlite", Lock(root / "locks" / "index")).rebuild(_records(root))


def _records(root: Path) -> Iterator[PolicyRecord]:
    """Records that differ in name, step and return; each is written when it is asked for."""
    from policysmith.store.file_names import record_name
    from policysmith.store.json_files import sha256
    from policysmith.store.policy_record import make_record

    said = {"type": "mlp", "role": None, "parameters": 4, "sha256": "0" * 64, "size": 100}
    first = make_record(
        name="run-N",
        step=None,
        epoch=None,
        metrics={"return": 0.125},
        parents=(),
        config="0" * 64,
        components={"trunk": said, "policy": said, "state_value": said},
        tags=(),
        sequence=0,
    )
    for number in range(COUNT):
        name, value = f"run-{number % 100}", (number * 7919 % COUNT + 1) / COUNT  # the best are anywhere in time
        body = first.body.replace(b"run-N", name.encode()).replace(b"0.125", repr(value).encode())
        body = body.replace(b'"nonce": "', b'"nonce": "%d-' % number)
        body = body.replace(b'"sequence": 0', b'"sequence": %d' % (number + 1))
        created = first.created + timedelta(seconds=number)
        body = body.replace(*(at.isoformat(timespec="microseconds").encode() for at in (first.created, created)))
        own = {"name": name, "metrics": {"return": value}, "created": created, "sequence": number + 1}
        record = replace(first, id=sha256(body), body=body, **own)
        (root / record_name(record.id)).write_bytes(body)
        yield record


def _row(selector: str, ask: Callable[[], object], target: float | None = None) -> Row:
    ask()  # the disk's pages come in
    samples = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ask()
        samples.append(time.perf_counter() - start)
    low, high = (value / BAR for value in median_interval(samples))
    seconds = statistics.median(samples)
    name = f"store of {COUNT:,}: {selector}"
    return Row(name, duration(seconds), f"bar {duration(BAR)}", seconds / BAR, low, high, target)
