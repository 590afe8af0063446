"""In which manner components are run: one after the other, or branches side by side where that measures faster."""

from policysmith.compile.executors.executors import Executor, ParallelExecutor, SequentialExecutor

__all__ = ["Executor", "ParallelExecutor", "SequentialExecutor"]
