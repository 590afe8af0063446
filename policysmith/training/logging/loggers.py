"""What a run shows and writes while it goes on: TensorBoard scalars and a progress display."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Protocol, Self

import numpy as np

from policysmith.registry import Infer, register
from policysmith.training.logging.report import Report
from policysmith.training.nonfinite.events import UPDATES, NonFinite, sentence

__all__ = ["Logger", "ProgressBar", "TensorBoard", "ReturnWindow", "WINDOW"]

WINDOW = 100


class Logger(Protocol):
    """Whoever wants to see reports."""

    def report(self, report: Report, steps_per_second: float) -> None:
        """After every iteration."""
        ...

    def close(self) -> None:
        """At the end of the run."""
        ...


class ReturnWindow:
    """The latest returns, and their mean."""

    def __init__(self, returns: Sequence[float] = ()) -> None:
        self.returns: deque[float] = deque(returns, maxlen=WINDOW)

    @property
    def mean(self) -> float:
        """Mean of up to 100 latest episode returns; nan before the first."""
        return float(np.mean(self.returns)) if self.returns else float("nan")


@register("tensorboard", slot="logger")
class TensorBoard:
    """Scalars under CleanRL's tag names: `charts/episodic_return`, `charts/SPS`, `losses/*`."""

    def __init__(
        self, directory: Annotated[str | Path, Infer("directory")], first_step: Annotated[int, Infer("step")] = 0
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory), purge_step=first_step or None)

    def report(self, report: Report, steps_per_second: float) -> None:
        """Write one iteration's scalars and every finished episode."""
        for episode in report.episodes:
            self._writer.add_scalar("charts/episodic_return", episode.episode_return, episode.step)
            self._writer.add_scalar("charts/episodic_length", episode.length, episode.step)
        for tag, value in report.scalars.items():
            self._writer.add_scalar(tag, value, report.step)
        self._writer.add_scalar("charts/SPS", steps_per_second, report.step)

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class ProgressBar:
    """A line that moves: steps, speed, mean return. On anything but a terminal it prints a line now and then.

    `unit` is what steps are called; `tag` names a scalar that is shown in place of the return.
    """

    def __init__(
        self,
        total: int,
        title: str,
        first_step: int = 0,
        enabled: bool = True,
        unit: str = "steps",
        tag: str | None = None,
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True)
        self._live = enabled and self._console.is_terminal
        self._plain = enabled and not self._live
        self._title, self._total, self._window = title, total, ReturnWindow()
        self._unit, self._tag, self._shown = unit, tag, tag.rpartition("/")[2] if tag else "return"
        self._next_line, self._next_warning = time.monotonic() + 5.0, 0.0
        self._left_out, self._updates = list[NonFinite](), 0
        self._bar: Any = Bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:>9,.0f} / {task.total:,.0f} " + unit),
            TextColumn("{task.fields[speed]}  " + self._shown + " {task.fields[mean]}", style="cyan"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=total, completed=first_step, speed="", mean="–")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:  # a bar that never began ends with an empty line in older releases of rich
            self._bar.stop()

    def report(self, report: Report, steps_per_second: float) -> None:
        """Move the bar, or print a line every few seconds."""
        self._window.returns.extend(e.episode_return for e in report.episodes)
        mean = self._figure(report)
        speed = f"{steps_per_second:,.0f}/s"
        self._bar.update(self._task, completed=report.step, speed=speed, mean=mean)
        self._warn(report)
        if self._plain and time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + 5.0
            self._console.print(
                f"{self._title}: {report.step:,} / {self._total:,} {self._unit}, {speed}, {self._shown} {mean}",
                highlight=False,
            )

    def _warn(self, report: Report) -> None:
        """Tell what was left out, at once and then every few seconds."""
        self._left_out += report.nonfinite
        self._updates += int(report.scalars.get(UPDATES, 0))
        told = sentence(self._left_out, self._updates)
        if told and (self._live or self._plain) and time.monotonic() >= self._next_warning:
            self._console.print(f"{self._title}: {told}", highlight=False, style="yellow", soft_wrap=True)
            self._left_out, self._updates = [], 0
            self._next_warning = time.monotonic() + 5.0

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._live or self._plain:
            self._console.print(f"note: {text}", highlight=False, markup=False)

    def _figure(self, report: Report) -> str:
        if self._tag is not None:
            return f"{report.scalars.get(self._tag, float('nan')):.4g}"
        return f"{self._window.mean:.1f}" if self._window.returns else "–"

    def close(self) -> None:
        """Nothing to flush."""
