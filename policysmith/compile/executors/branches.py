"""Branches: what of a graph can run side by side, and running it so, on threads or on CUDA streams.

In: names in the order they run, what each needs, and a call for each chain. Out: the calls made, each after its needs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from policysmith.compile.exclusive import exclusive

__all__ = ["Branches", "Streams", "Threads", "find_branches"]

Call = Callable[[int], None]


@dataclass(frozen=True)
class Branches:
    """Chains of names, in order; `needs` holds for each the numbers of the chains that it waits for."""

    chains: tuple[tuple[str, ...], ...]
    needs: tuple[frozenset[int], ...]

    @property
    def width(self) -> int:
        """How many chains stand side by side, where it is most."""
        levels: list[int] = []
        for needs in self.needs:
            levels.append(1 + max((levels[n] for n in needs), default=-1))
        return max(map(levels.count, levels), default=0)


def find_branches(order: Sequence[str], needs: Mapping[str, Iterable[str]]) -> Branches:
    """Names, each after what it needs, as the longest chains in which each name waits for the one before alone."""
    needed = {name: [n for n in dict.fromkeys(needs[name]) if n in set(order)] for name in order}
    readers = {name: [other for other in order if name in needed[other]] for name in order}
    chain_of: dict[str, int] = {}
    chains: list[list[str]] = []
    for name in order:
        before = needed[name]
        if len(before) == 1 and readers[before[0]] == [name]:
            chain_of[name] = chain_of[before[0]]
            chains[chain_of[name]].append(name)
        else:
            chain_of[name] = len(chains)
            chains.append([name])
    waits = [frozenset(chain_of[n] for n in needed[chain[0]]) for chain in chains]
    return Branches(tuple(map(tuple, chains)), tuple(waits))


class Threads:
    """Runs chains on a pool of threads, made at first use, and on the thread that asks.

    A task never waits for another one, and a call from inside a task is refused (`inside`), so that nesting can't
    deadlock. `close` ends the threads; the next call starts new ones. Copies have a pool of their own.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or max(1, min(8, (os.cpu_count() or 2) - 1))
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    @property
    def inside(self) -> bool:
        """Whether this thread runs a task of any pool."""
        return getattr(_LOCAL, "inside", False)

    def run(self, branches: Branches, call: Call) -> None:
        """Make the call for each chain. Where some fail, the failure of the first chain in order is raised."""
        waiting = {i: set(needs) for i, needs in enumerate(branches.needs)}
        running: dict[Future[None], int] = {}
        failed: dict[int, BaseException] = {}
        task = _carrying(call)
        while (waiting and not failed) or running:
            ready = [] if failed else [i for i, needs in waiting.items() if not needs]
            for i in ready:
                del waiting[i]
            running.update((self._submit(task, i), i) for i in ready[1:])
            finished = [_attempt(task, i, failed) for i in ready[:1]]
            if not finished:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                finished = [_attempt(_result_of(future), running.pop(future), failed) for future in done]
            for needs in waiting.values():
                needs.difference_update(finished)
        if failed:
            raise failed[min(failed)]

    def close(self) -> None:
        """End the threads."""
        with exclusive(self):
            pool, self._pool = self._pool, None
        if pool is not None and self._process == os.getpid():
            pool.shutdown()

    def _submit(self, task: Call, i: int) -> Future[None]:
        with exclusive(self):  # or `close` could end the pool between finding it and giving it the task
            if self._pool is None or self._process != os.getpid():  # a forked process has the pool, not its threads
                self._pool = ThreadPoolExecutor(self.workers, "policysmith-branch")
                self._process = os.getpid()
            return self._pool.submit(task, i)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}


class Streams:
    """Runs chains on CUDA streams of their own, from this thread: kernels overlap, Python does not.

    `wrote` gives the tensors that a chain has made: the caller's stream is told to use them too.
    """

    def __init__(self, cuda: Any = torch.cuda) -> None:
        self.cuda = cuda
        self._streams: list[Any] = []

    def run(self, branches: Branches, call: Call, wrote: Callable[[int], Iterable[Any]]) -> None:
        """Queue every chain, and have the caller's stream wait for all of them."""
        here = self.cuda.current_stream()
        started = here.record_event()
        done: dict[int, Any] = {}
        while len(self._streams) < len(branches.chains):
            self._streams.append(self.cuda.Stream())
        for i, needs in enumerate(branches.needs):
            stream = self._streams[i]
            stream.wait_event(started)
            for n in needs:
                stream.wait_event(done[n])
            with self.cuda.stream(stream):
                call(i)
            done[i] = stream.record_event()
            for tensor in wrote(i):
                for other in (here, *self._streams[: len(branches.chains)]):
                    tensor.record_stream(other)
        for event in done.values():
            here.wait_event(event)

    def __getstate__(self) -> dict[str, Any]:
        return {"cuda": None, "_streams": []}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


_LOCAL = threading.local()


def _attempt(call: Call, i: int, failed: dict[int, BaseException]) -> int:
    try:
        call(i)
    except BaseException as error:
        failed[i] = error
    return i


def _result_of(future: Future[None]) -> Call:
    return lambda _: future.result()


def _carrying(call: Call) -> Call:
    """The call as a task: torch's modes are each thread's own, so those of this thread are taken along."""
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    casts = [(kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]

    def task(i: int) -> None:
        _LOCAL.inside = True
        try:
            with ExitStack() as modes:
                modes.enter_context(torch.inference_mode(inference))
                modes.enter_context(torch.set_grad_enabled(grad))
                for kind, dtype in casts:
                    modes.enter_context(torch.autocast(kind, dtype))
                call(i)
        finally:
            _LOCAL.inside = False

    return task
