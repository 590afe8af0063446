"""Reports as JSON, one object a line: what scripts read where people look at TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

from policysmith.registry import Infer, register
from policysmith.store.files import replace_file
from policysmith.training.logging.report import Report

__all__ = ["JsonLines"]


@register("json_lines", slot="logger")
class JsonLines:
    """`metrics.jsonl`: step, iteration and scalars of every report; what is not finite becomes null.

    Lines later than `first_step`, which a run that was killed has left, are removed.
    """

    def __init__(
        self, directory: Annotated[str | Path, Infer("directory")], first_step: Annotated[int, Infer("step")] = 0
    ) -> None:
        file = Path(directory) / "metrics.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        kept = [line for line in lines if (step := _step(line)) is not None and step <= first_step]
        replace_file(file, "".join(f"{line}\n" for line in kept).encode())  # a kill meanwhile loses no line
        self._stream = file.open("a", encoding="utf-8")

    def report(self, report: Report, steps_per_second: float) -> None:
        """Write one line."""
        scalars = {**report.scalars, "charts/SPS": steps_per_second}
        numbers = {tag: value if math.isfinite(value) else None for tag, value in scalars.items()}
        self._stream.write(json.dumps({"step": report.step, "iteration": report.iteration, **numbers}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Flush."""
        self._stream.close()


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None  # a line that was cut off
