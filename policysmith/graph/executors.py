"""The executors by the path they used to have; they are in `policysmith.compile.executors`."""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.compile.executors import Executor, ParallelExecutor, SequentialExecutor

__all__ = ["Executor", "ParallelExecutor", "SequentialExecutor"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "policysmith.compile.executors"))
