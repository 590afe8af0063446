"""Workers as processes of this machine: they outlive the scheduler, and a later one takes them over.

In: jobs. Out: their exit status. A worker runs only once `worker.json` says who it is, so that none is ever unknown.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from policysmith.errors import SkillError
from policysmith.registry import register
from policysmith.skills.runs.run_files import LOG, WorkerRecord, last_sign
from policysmith.skills.scheduling.launcher import Ended, Job
from policysmith.skills.scheduling.processes import (
    HAVE_PROC,
    families,
    is_alive,
    kill_all,
    machine_memory,
    resident_of,
    start_of,
)
from policysmith.types import Count, NonNegative

__all__ = ["LocalLauncher"]

# The shell waits for a line before it becomes the worker: if the scheduler is killed in between, it reads the end of
# the file instead, and ends.
GATE = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "worker")
LOOK_EVERY = 0.25  # seconds between looks at memory and clocks
DEATH_SIGNAL = 1  # prctl(PR_SET_PDEATHSIG)


@dataclass
class _Worker:
    """A worker that is watched; `handle` is its pidfd, `child` None where an earlier scheduler has started it."""

    job: Job
    record: WorkerRecord
    handle: int
    child: subprocess.Popen[bytes] | None
    kill_at: float | None = None
    reason: str = ""


@register("local", slot="launcher")
class LocalLauncher:
    """Workers as processes of this machine, each in a session of its own, with `threads` threads.

    One that holds more resident memory than it may, it and its descendants together, is killed; where no limit is
    stated, one that by itself holds more than half of the machine's. One that takes longer than it may, tells nothing
    for too long, or is asked to stop, gets SIGTERM, and SIGKILL if it lives `grace` seconds later.

    Args:
        threads: How many threads a worker computes with.
        grace: How many seconds a worker has to save and stop.
    """

    def __init__(self, threads: Count = 1, grace: NonNegative = 30.0) -> None:
        if not HAVE_PROC:
            raise SkillError("workers are watched in ways that this system does not have; Linux is needed")
        self.threads, self.grace = threads, grace
        self.ends_with_us = False  # whether workers are killed when this process ends
        self.most_memory = machine_memory() // 2  # bytes, of a worker without a limit of its own
        self._workers: dict[str, _Worker] = {}
        self._poll = select.poll()
        self._by_handle: dict[int, str] = {}
        self._next_look = 0.0

    def start(self, job: Job) -> None:
        """Start a worker; one that still lives in the folder is ended before. Raises OSError."""
        self._end_predecessor(job)
        with (job.folder / LOG).open("ab") as log:
            child = subprocess.Popen(
                [*GATE, *job.argv],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(self.threads),
                start_new_session=True,
                preexec_fn=_die_with_parent() if self.ends_with_us else None,
            )
        assert child.stdin is not None
        try:
            record = WorkerRecord(child.pid, start_of(child.pid) or 0, job.attempt)
            record.write(job.folder)
            child.stdin.write(b"go\n")
            child.stdin.close()
        except BaseException:
            child.kill()
            child.wait()
            raise
        self._watch(_Worker(job, record, os.pidfd_open(child.pid), child))

    def adopt(self, job: Job) -> bool:
        """Take over the worker that lives in the job's folder, if there is one."""
        record = WorkerRecord.read(job.folder)
        if record is None or not record.is_here:
            return False
        try:
            handle = os.pidfd_open(record.pid)
        except OSError:
            return False
        if not is_alive(record.pid, record.start):  # asked after opening: now the number can't change hands
            os.close(handle)
            return False
        self._watch(_Worker(job, record, handle, None))
        return True

    def stop(self, skill: str) -> None:
        """SIGTERM now, SIGKILL when it lives too long after it."""
        if (worker := self._workers.get(skill)) and worker.kill_at is None:
            self._ask(worker)

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended, as soon as there are any."""
        until = time.monotonic() + seconds
        while True:
            rest = max(0.0, min(until, self._next_look) - time.monotonic()) if self._workers else seconds
            ready = self._poll.poll(rest * 1000)
            if self._workers and time.monotonic() >= self._next_look:
                self._look()
            if ready or time.monotonic() >= until:
                return [self._ended(self._by_handle[handle]) for handle, _ in ready]

    def close(self) -> None:
        """Let go of the workers, which go on."""
        for worker in self._workers.values():
            os.close(worker.handle)
        self._workers.clear()

    def _watch(self, worker: _Worker) -> None:
        self._workers[worker.job.skill] = worker
        self._by_handle[worker.handle] = worker.job.skill
        self._poll.register(worker.handle, select.POLLIN)

    def _ask(self, worker: _Worker, reason: str = "") -> None:
        worker.kill_at, worker.reason = time.monotonic() + self.grace, reason
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(worker.handle, signal.SIGTERM)

    def _look(self) -> None:
        """End those that hold too much, take too long, or do not stop."""
        self._next_look = time.monotonic() + LOOK_EVERY
        limited = {w.record.pid: w for w in self._workers.values() if w.job.resources.memory_bytes is not None}
        for pid, family in families(limited).items() if limited else ():
            limit = limited[pid].job.resources.memory_bytes or 0
            _check_memory(limited[pid], sum(process.resident for process in family), limit)
        for pid, worker in ((w.record.pid, w) for w in self._workers.values()):
            if pid not in limited:  # to look at everybody's descendants costs too much where nobody has asked for it
                _check_memory(worker, resident_of(pid), self.most_memory)
            if worker.kill_at is None:
                self._check_clocks(worker)
            elif time.monotonic() >= worker.kill_at:
                _kill(worker)

    def _check_clocks(self, worker: _Worker) -> None:
        job, record, now = worker.job, worker.record, time.time()
        if job.seconds is not None and now > record.since + job.seconds:
            self._ask(worker, f"took longer than {job.seconds:,.0f} s")
        elif job.silence is not None and now > max(record.since, last_sign(job.folder)) + job.silence:
            self._ask(worker, f"told nothing for {job.silence:,.0f} s: something in it hangs")

    def _ended(self, skill: str) -> Ended:
        worker = self._workers.pop(skill)
        self._poll.unregister(worker.handle)
        del self._by_handle[worker.handle]
        os.close(worker.handle)
        # What it has left behind goes with it. Its number is not given again before `wait`.
        group = families([worker.record.pid])[worker.record.pid] if worker.child else []
        kill_all(process for process in group if process.group == worker.record.pid != process.pid)
        return Ended(skill, worker.child.wait() if worker.child else None, worker.reason)

    def _end_predecessor(self, job: Job) -> None:
        """Two workers in a folder would overwrite each other's checkpoints."""
        if self.adopt(job):
            worker = self._workers[job.skill]
            self._ask(worker)
            alone = select.poll()
            alone.register(worker.handle, select.POLLIN)
            while not alone.poll(LOOK_EVERY * 1000):
                self._look()
            self._ended(job.skill)


def _check_memory(worker: _Worker, held: int, limit: int) -> None:
    if held > limit:
        worker.reason = f"held {held / 1e6:,.0f} MB of memory, allowed are {limit / 1e6:,.0f} MB"
        _kill(worker)


def _kill(worker: _Worker) -> None:
    kill_all(families([worker.record.pid])[worker.record.pid])


def _environment(threads: int) -> dict[str, str]:
    count = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    return {**os.environ, **count}


def _die_with_parent() -> Callable[[], None]:
    """What a child does before it runs, so that the system kills it when this thread ends."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl  # found before the fork: a child of a process with threads must not import
    return lambda: prctl(DEATH_SIGNAL, signal.SIGKILL) and None
