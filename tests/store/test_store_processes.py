"""Many processes save into one store, and are killed while they do: nothing is lost, and what is listed loads."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from policysmith.store import PolicyStore
from tests.store import workers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs processes that can be killed")


@pytest.fixture(scope="module")
def processes():
    """Processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.workers"])
    return context


def together(processes, function, arguments) -> list[int]:
    """Exit codes of processes that run at once."""
    running = [processes.Process(target=function, args=one) for one in arguments]
    for process in running:
        process.start()
    for process in running:
        process.join(280)
    return [process.exitcode for process in running]


def check_all_there(uri, writers: int, saves: int) -> None:
    store = PolicyStore(uri)
    wanted = sorted(worker * 1000.0 + number for worker in range(writers) for number in range(saves))
    assert sorted(workers.values_of(store)) == wanted
    assert store.verify() == []
    assert [r.metrics["value"] for r in store.find("top:3:value")] == wanted[:-4:-1]
    assert len(store.find("tag:all")) == len(wanted)
    assert len(list((store._storage.root / "objects").rglob("*.safetensors"))) == len(wanted) + 2, (
        "shared trunk and value"
    )


def test_writers_at_once_lose_nothing(processes, tmp_path):
    assert together(processes, workers.save_many, [(str(tmp_path / "s"), n, 6) for n in range(3)]) == [0] * 3
    check_all_there(tmp_path / "s", 3, 6)


def test_a_clean_up_meanwhile_takes_nothing_of_a_save_under_way(processes, tmp_path):
    uri = str(tmp_path / "s")
    workers.save_many(uri, 9, 1)
    store = PolicyStore(uri)
    running = [processes.Process(target=workers.save_many, args=(uri, n, 6)) for n in range(2)]
    for process in running:
        process.start()
    cleaned = 0
    while any(process.is_alive() for process in running):
        store.gc()
        cleaned += 1
    assert cleaned > 1 and [process.exitcode for process in running] == [0, 0]
    assert len(workers.values_of(PolicyStore(uri))) == 13
    assert store.verify() == []


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_save_killed_at_any_step_leaves_a_whole_store(processes, tmp_path, stride):
    """The first save of all, which also makes the store."""
    moment, ended, left = 0, False, set()
    while not ended:
        uri = str(tmp_path / str(moment))
        (code,) = together(processes, workers.save_and_die, [(uri, moment)])
        ended = code == 0
        assert code in (0, -signal.SIGKILL)
        store = PolicyStore(uri)
        assert workers.values_of(store) in ([[float(moment)]] if ended else [[], [float(moment)]])
        assert len(store.find("tag:late")) == len(store.find())
        store.save(workers.small_policy(-1), name="after", metrics={"value": -1})
        assert store.verify() == []
        left |= {name.partition("/")[0] for name in store.gc().files}
        assert sorted(workers.values_of(PolicyStore(uri)))[0] == -1
        assert store.verify() == [] and not list((tmp_path / str(moment) / "tmp").iterdir())
        moment += stride
    assert moment > 20, "a save has many steps"
    assert left == {"tmp", "objects", "tags"} or stride > 1


def wait_for_a_record(uri: str, before: int) -> None:
    """Until writers are at it."""
    deadline = time.monotonic() + 60
    while len(list(Path(uri, "records").glob("*.json"))) <= before:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_writers(processes, uri: str, kills: int, writers: int) -> int:
    """Kill writers at random moments while they save, and check every listed policy each time; how many there are."""
    generator, seen = random.Random(0), 0
    for round_number in range(kills):
        running = [
            processes.Process(target=workers.save_until_killed, args=(uri, round_number)) for _ in range(writers)
        ]
        for process in running:
            process.start()
        wait_for_a_record(uri, seen)
        time.sleep(generator.uniform(0.0, 0.1))  # a save takes about a tenth of that
        for process in running:
            process.kill()
            process.join()
        store = PolicyStore(uri)
        seen = len(workers.values_of(store))
        assert store.verify() == []
    return seen


def test_writers_killed_at_random_moments_leave_a_whole_store(processes, tmp_path):
    assert kill_writers(processes, str(tmp_path / "s"), kills=2, writers=2) >= 2


@pytest.mark.slow
def test_eight_processes_save_a_hundred_each(processes, tmp_path):
    assert together(processes, workers.save_many, [(str(tmp_path / "s"), n, 100) for n in range(8)]) == [0] * 8
    check_all_there(tmp_path / "s", 8, 100)


@pytest.mark.slow
def test_fifty_kills_at_random_moments(processes, tmp_path):
    assert kill_writers(processes, str(tmp_path / "s"), kills=50, writers=1) >= 50
