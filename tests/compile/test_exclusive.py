"""One lock for each owner: held by one thread at a time, re-entrant, and gone with its owner."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest
from torch import nn

from policysmith.compile.exclusive import exclusive


def is_free(owner: object) -> bool:
    """Whether another thread would get the owner's lock at once."""
    found: list[bool] = []

    def ask() -> None:
        lock = exclusive(owner)
        found.append(lock.acquire(blocking=False))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


def test_one_thread_at_a_time_holds_the_lock_of_an_owner() -> None:
    owner, other = nn.ModuleDict(), nn.ModuleDict()
    with exclusive(owner):
        assert not is_free(owner)
        assert is_free(other)
    assert is_free(owner)


def test_who_holds_it_may_take_it_again() -> None:
    owner = nn.ModuleDict()
    with exclusive(owner):
        with exclusive(owner):
            pass
        assert not is_free(owner), "the inner `with` gave away what the outer one holds"


def test_a_lock_does_not_keep_its_owner() -> None:
    owner = nn.ModuleDict()
    with exclusive(owner):
        pass
    left = weakref.ref(owner)
    del owner
    gc.collect()
    assert left() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of forking beside threads, which is what is tested
def test_a_forked_process_has_no_lock_that_nobody_can_release() -> None:
    owner = nn.ModuleDict()
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(owner):
            held.set()
            enough.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    pid = os.fork()
    if not pid:
        os._exit(0 if exclusive(owner).acquire(blocking=False) else 1)
    enough.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
