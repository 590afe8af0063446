"""Whoever sees a run's reports: the display, loggers and callbacks.

In: what the algorithm names, and reports. Out: files below `logs/`, and whether a callback wants to stop. Loggers open
with the first report: a run that is refused before it leaves every file as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from policysmith.registry import PartSpec
from policysmith.training.logging.loggers import Logger, ProgressBar
from policysmith.training.logging.report import Report
from policysmith.training.process.generators import generators_kept

__all__ = ["Watchers"]

LOGS = "logs"


class Watchers:
    """Those of one run; `directory` is None where nothing is written down, `step` is the one it begins after.

    A logger that can't write (the disk is full) is left out from then on, and `say` is told: it must not end a run.
    A callback with `state()` (plain data) and `restore(state)` goes on where it was when the run is resumed.
    """

    def __init__(
        self,
        loggers: Sequence[PartSpec],
        callbacks: Sequence[PartSpec],
        directory: Path | None,
        say: Callable[[str], None],
    ) -> None:
        self._specs, self.directory, self._say = loggers, directory, say
        self._names = [spec.type for spec in callbacks]
        self._callbacks: list[Any] = [spec.build() for spec in callbacks]
        self._loggers: list[Logger] | None = None
        self.display: ProgressBar | None = None
        self.step = 0

    def tell(self, report: Report, speed: float) -> bool:
        """Pass a report on; whether a callback wants to stop."""
        if self.display is not None:
            self.display.report(report, speed)
        for logger in self._opened():
            self._try(logger, partial(logger.report, report, speed))
        wanted = [callback(report) for callback in self._callbacks]  # each is told, whoever wants to stop
        return any(wanted)

    def close(self) -> None:
        """At the end of the run."""
        for logger in self._loggers or []:
            self._try(logger, logger.close)

    def state(self) -> list[dict[str, Any]]:
        """What the callbacks keep, as they are named; as texts, so that what they do later changes nothing."""
        return [
            {"type": name, "state": json.dumps(callback.state()) if _keeps_state(callback) else None}
            for name, callback in zip(self._names, self._callbacks, strict=True)
        ]

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Give callbacks what they kept, each the one that was in its place; one that is new begins anew."""
        for name, callback, found in zip(self._names, self._callbacks, states, strict=False):
            if found["type"] == name and found["state"] is not None and _keeps_state(callback):
                callback.restore(json.loads(found["state"]))

    def _opened(self) -> list[Logger]:
        if self._loggers is None:
            self._loggers = []
            if self.directory is not None:
                with generators_kept():  # a package that is imported may draw, and only once a process
                    for spec in self._specs:
                        self._try(None, partial(self._open, spec))
        return list(self._loggers)

    def _open(self, spec: PartSpec) -> None:
        assert self.directory is not None and self._loggers is not None
        self._loggers.append(spec.build(directory=self.directory / LOGS, step=self.step))

    def _try(self, logger: Logger | None, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            name = "a logger" if logger is None else type(logger).__name__
            self._say(f"{name} has stopped: {error}; training goes on")
            if logger is not None and self._loggers is not None and logger in self._loggers:
                self._loggers.remove(logger)


def _keeps_state(callback: Any) -> bool:
    return callable(getattr(callback, "state", None)) and callable(getattr(callback, "restore", None))
