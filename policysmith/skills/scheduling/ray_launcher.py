"""Workers as tasks of a Ray cluster, whose nodes share the library's file system.

In: jobs. Out: their exit status; a node that is lost is a worker that is lost, which the scheduler starts again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from policysmith.errors import missing_extra
from policysmith.registry import register
from policysmith.skills.runs.run_files import SAVED, WorkerRecord
from policysmith.skills.scheduling.launcher import Ended, Job
from policysmith.skills.scheduling.local import LocalLauncher
from policysmith.types import Count, NonNegative

__all__ = ["RayLauncher"]

STOP = "stop"  # a file in the run's folder: its worker shall save and end
LOOK_EVERY = 0.25  # seconds between looks for it


@register("ray", slot="launcher")
class RayLauncher:
    """Workers as tasks of the Ray cluster at `address`, or of one on this machine; the extra is `ray`.

    A skill's `resources` say what its task needs: a task waits for a node that has so many `cpus` and `gpus` free, and
    so much memory. All nodes must see the library under the same path. `threads` and `grace` are as for `local`;
    `options` go to `ray.init`.

    Args:
        address: The cluster; null starts one on this machine.
        threads: How many threads a worker computes with.
        grace: How many seconds a worker has to save and stop.
        options: Further options of a Ray task.
    """

    def __init__(
        self,
        address: str | None = None,
        threads: Count = 1,
        grace: NonNegative = 30.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        try:
            import ray
        except ImportError:
            raise missing_extra("ray", "ray") from None
        self._ray, self._threads, self._grace = ray, threads, grace
        self._ours = not ray.is_initialized()
        if self._ours:
            own = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            ray.init(address=address or "local", **{"log_to_driver": False, **own, **(options or {})})
        self._tasks: dict[Any, Job] = {}
        self._work = ray.remote(_work)

    def start(self, job: Job) -> None:
        """Hand the job to the cluster."""
        (job.folder / STOP).unlink(missing_ok=True)
        wanted = job.resources
        options: dict[str, Any] = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus, "max_retries": 0}
        if wanted.memory_bytes is not None:
            options["memory"] = wanted.memory_bytes
        # The scheduler retries, not Ray: so that every attempt is counted, and starts from the latest checkpoint.
        task = self._work.options(name=job.skill, **options).remote(job, self._threads, self._grace)
        self._tasks[task] = job

    def adopt(self, job: Job) -> bool:
        """False: tasks end with the scheduler that started them. One that is slow to die is ended before the next."""
        return False

    def stop(self, skill: str) -> None:
        """Ask the worker to save and end; a task that no node has taken yet is called off."""
        task, job = next(item for item in self._tasks.items() if item[1].skill == skill)
        (job.folder / STOP).touch()
        record = WorkerRecord.read(job.folder)
        if record is None or record.attempt != job.attempt:
            self._ray.cancel(task)

    def wait(self, seconds: float) -> list[Ended]:
        """Those that have ended, as soon as there are any."""
        if not self._tasks:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        return [self._ended(task) for task in ready]

    def close(self) -> None:
        """Leave the cluster, if it was this launcher that joined it."""
        for job in self._tasks.values():
            with suppress(OSError):
                (job.folder / STOP).touch()
        if self._ours:
            self._ray.shutdown()

    def _ended(self, task: Any) -> Ended:
        job = self._tasks.pop(task)
        try:
            status, reason = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            return Ended(job.skill, None, f"its task failed: {error.cause}")
        except self._ray.exceptions.RayError as error:
            return Ended(job.skill, None, f"its task is lost: {type(error).__name__}")
        return Ended(job.skill, status, reason)


def _work(job: Job, threads: int, grace: float) -> tuple[int | None, str]:
    """What a node does: run the worker as a process of its own, and end it when the task ends."""
    launcher = LocalLauncher(threads, grace)
    launcher.ends_with_us = True
    if (job.folder / STOP).exists():
        return SAVED, ""
    launcher.start(job)
    while not (ended := launcher.wait(LOOK_EVERY)):
        if (job.folder / STOP).exists():
            launcher.stop(job.skill)
    return ended[0].status, ended[0].reason
