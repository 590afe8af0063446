"""Learning curves as pictures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["plot_learning_curve", "plot_learning_curves", "plot_losses", "plot_search"]

INK, BAND, LINE, GOAL, JUDGED = "#3d4450", "#b9c7de", "#2f5fb3", "#c0792a", "#3a8f5c"
SERIES = ("#2f5fb3", "#c0792a", "#3a8f5c", "#8a5bb5", "#b5433f", "#5b6573")


def plot_learning_curve(
    path: str | Path,
    steps: Sequence[int],
    returns: Sequence[float],
    title: str,
    goal: float | None = None,
    judgements: Sequence[tuple[int, float, float]] = (),
) -> Path:
    """Episode returns against environment steps, with the mean of the 20 latest and the goal, as a PNG.

    `judgements` are (step, mean, standard deviation) of evaluations on the way.
    """
    figure, axes = _page(title)
    if len(returns):
        axes.scatter(steps, returns, s=7, color=BAND, linewidths=0, label="episodes", rasterized=True)
        axes.plot(steps, _running_mean(np.asarray(returns, float)), color=LINE, linewidth=1.8, label="mean of 20")
    if judgements:
        at, means, deviations = zip(*judgements, strict=True)
        style: dict[str, Any] = {"fmt": "o-", "markersize": 4, "linewidth": 1.2, "capsize": 2, "elinewidth": 0.8}
        axes.errorbar(at, means, deviations, color=JUDGED, label="evaluation ± 1 std", zorder=4, **style)
    return _finish(figure, axes, path, goal)


def plot_learning_curves(
    path: str | Path,
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    title: str,
    goal: float | None = None,
    window: int = 100,
) -> Path:
    """Several runs side by side, each the mean return of its `window` latest episodes; name → (steps, returns)."""
    figure, axes = _page(title)
    for color, (name, (steps, returns)) in zip(itertools.cycle(SERIES), curves.items(), strict=False):
        mean = _running_mean(np.asarray(returns, float), window)
        axes.plot(steps, mean, color=color, linewidth=1.8, label=name)
    return _finish(figure, axes, path, goal)


def plot_losses(path: str | Path, curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], title: str) -> Path:
    """Losses against updates, as a PNG: name → (updates, losses)."""
    figure, axes = _page(title, "updates", "loss")
    for color, (name, (steps, losses)) in zip(SERIES, curves.items(), strict=False):
        axes.plot(steps, losses, color=color, linewidth=1.8, label=name)
    return _finish(figure, axes, path, None)


def plot_search(path: str | Path, values: Sequence[tuple[int, float]], metric: str, direction: str) -> Path:
    """What each trial of a search reached, as (number, value), and the best until then, as a PNG."""
    figure, axes = _page("trials", "trial", metric)
    numbers, reached = [number for number, _ in values], np.array([value for _, value in values])
    best = (np.minimum if direction == "minimize" else np.maximum).accumulate(reached)
    axes.step(numbers, best, where="post", color=LINE, linewidth=1.8, label="best so far")
    axes.scatter(numbers, reached, s=26, color=BAND, edgecolors=LINE, linewidths=0.8, zorder=3, label="trials")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _finish(figure, axes, path, None)


def _page(title: str, across: str = "environment steps", up: str = "return") -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c9ced6")
    return figure, axes


def _finish(figure: Any, axes: Any, path: str | Path, goal: float | None) -> Path:
    if goal is not None:
        axes.axhline(goal, color=GOAL, linewidth=1.0, linestyle=(0, (4, 3)), label=f"solved at {goal:g}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best", fontsize=8.5, labelcolor=INK)
    figure.savefig(path)
    return Path(path)


def _running_mean(values: np.ndarray, window: int = 20) -> np.ndarray:
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
