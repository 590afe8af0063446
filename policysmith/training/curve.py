"""The learning curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["plot_learning_curve"]

INK, BAND, LINE, GOAL = "#3d4450", "#b9c7de", "#2f5fb3", "#c0792a"


def plot_learning_curve(
    path: str | Path, steps: Sequence[int], returns: Sequence[float], title: str, goal: float | None = None
) -> Path:
    """Episode returns against environment steps, with the mean of the 20 latest and the goal, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if len(returns):
        axes.scatter(steps, returns, s=7, color=BAND, linewidths=0, label="episodes", rasterized=True)
        axes.plot(steps, _running_mean(np.asarray(returns, float)), color=LINE, linewidth=1.8, label="mean of 20")
    if goal is not None:
        axes.axhline(goal, color=GOAL, linewidth=1.0, linestyle=(0, (4, 3)), label=f"solved at {goal:g}")
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.set_xlabel("environment steps", color=INK)
    axes.set_ylabel("return", color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
    axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c9ced6")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best", fontsize=8.5, labelcolor=INK)
    figure.savefig(path)
    return Path(path)


def _running_mean(values: np.ndarray, window: int = 20) -> np.ndarray:
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
