"""A vector of environments in worker processes, whose errors come as they were raised.

In: functions that make environments. Out: gymnasium's vector, but for what it prints when a worker fails.
"""

from __future__ import annotations

from collections.abc import Iterable

from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

__all__ = ["WorkerTraceback", "Workers"]


class WorkerTraceback(Exception):
    """Where in a worker process an error was raised: the traceback itself can't leave the process."""


class Workers(AsyncVectorEnv):
    """Processes with an environment each; the error of the first one that failed is raised, and nothing is printed."""

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        failed = [success for success in successes if not success]
        if not failed:
            return
        told = sorted((self.error_queue.get() for _ in failed), key=lambda report: int(report[0]))
        for index, *_ in told:
            self.parent_pipes[index].close()
            self.parent_pipes[index] = None  # gymnasium's mark of a worker that has ended
        self._state = AsyncState.DEFAULT
        _, kind, value, trace = told[0]
        error = value if isinstance(value, BaseException) else kind(value)
        raise error from WorkerTraceback(f"in a worker process:\n{trace}")
