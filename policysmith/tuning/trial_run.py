"""One trial: the experiment with the values that were drawn is trained, watched and judged.

In: a search and values. Out: the metric; or the reason why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from policysmith import api
from policysmith.config.experiment import Experiment, decode_experiment
from policysmith.config.load import load
from policysmith.errors import PolicysmithError
from policysmith.registry import PartSpec, Registry, default_registry
from policysmith.store.files import replace_file
from policysmith.training.logging.loggers import ReturnWindow
from policysmith.training.logging.report import Report
from policysmith.training.offline.dataset_section import require_offline
from policysmith.training.offline.offline import EPOCHS
from policysmith.training.rollout.evaluation import EvaluationResult
from policysmith.training.run.offline_run import run_offline
from policysmith.training.run.online_run import run_training
from policysmith.tuning.search import Metric, Search, is_offline
from policysmith.tuning.study import STAGES

__all__ = ["CONFIG", "POLICY", "Stopped", "Tell", "play"]

CONFIG, POLICY = "config.yaml", "policy"

Tell = Callable[[float, int], None]
"""Told what a trial is worth so far and its stage, 1 to `STAGES`; raises where the trial is not worth its time."""


class Stopped(Exception):
    """The trial was not played to its end, and nobody's fault it is."""


def play(search: Search, values: Mapping[str, Any], folder: Path, tell: Tell, ends: Callable[[], bool]) -> float:
    """Train with these values into `folder` (its configuration, and the artifact); returns the metric.

    Raises `Stopped` after Ctrl-C or when `ends()` says so, and whatever training raises.
    """
    experiment = search.experiment(dict(values))
    config = experiment.resolved()
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / CONFIG, yaml_text(config).encode())
    policy = api.build(config)
    experiment = decode_experiment(load(config), default_registry)
    watched = _watched(experiment, _Watch(experiment, search.metric, tell, ends))
    judged, place = search.metric == "evaluation", folder / POLICY
    if is_offline(experiment):
        episodes = require_offline(experiment, None)
        run = run_offline(watched, policy, episodes, place, progress=False, evaluate=judged)
        losses = [loss for _, loss in run.losses["validation"]]
        found = _judgement(run.evaluation) if judged else losses[-1] if losses else math.nan
        interrupted = run.interrupted
    else:
        online = run_training(watched, policy, place, progress=False, evaluate=judged)
        found = _judgement(online.evaluation) if judged else ReturnWindow([value for _, value in online.returns]).mean
        interrupted = online.interrupted
    if interrupted:
        raise Stopped
    if not math.isfinite(found):
        raise PolicysmithError(f"the metric {search.metric} is {found}: no episode ended, or training went astray")
    return found


def yaml_text(config: Mapping[str, Any]) -> str:
    """A configuration as a file has it."""
    text: str = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)
    return text


def _judgement(evaluation: EvaluationResult | None) -> float:
    return math.nan if evaluation is None else evaluation.mean


def _watched(experiment: Experiment, watch: Callable[[Report], bool]) -> Experiment:
    """The experiment with one more callback, which its stored configuration does not name."""
    training = experiment["training"]
    if "callbacks" not in training.options:  # an algorithm of one's own, which reports to nobody
        return experiment
    registry = Registry()
    registry.register("watch", slot="callback")(lambda: watch)
    callbacks = [*training.options["callbacks"], registry.decode("callback", "watch")]
    options = {**training.options, "callbacks": callbacks}
    return experiment.with_section("training", PartSpec(training.entry, options))


class _Watch:
    """A callback that says what a trial is worth so far, at equal shares of its training whatever its steps are."""

    def __init__(self, experiment: Experiment, metric: Metric, tell: Tell, ends: Callable[[], bool]) -> None:
        self.tell, self.ends, self.metric, self.offline = tell, ends, metric, is_offline(experiment)
        self.options: Mapping[str, Any] = experiment["training"].options
        self.window, self.stage = ReturnWindow(), 0

    def __call__(self, report: Report) -> bool:
        """Never wants to stop; raises what `tell` raises, or `Stopped`."""
        if self.ends():
            raise Stopped
        self.window.returns.extend(episode.episode_return for episode in report.episodes)
        worth = self._worth(report)
        reached = min(STAGES, int(STAGES * self._progress(report)))
        for stage in range(self.stage + 1, reached + 1) if math.isfinite(worth) else ():
            self.stage = stage
            self.tell(worth, stage)
        return False

    def _worth(self, report: Report) -> float:
        """Of recorded data only losses are known on the way: where returns are the metric, less is better."""
        if not self.offline:
            return self.window.mean
        loss = report.scalars.get("validation/loss", report.scalars.get("training/loss", math.nan))
        return loss if self.metric == "validation-loss" else -loss

    def _progress(self, report: Report) -> float:
        if not self.offline:
            return report.step / self.options["total_steps"] if "total_steps" in self.options else 0.0
        if self.options.get("updates"):
            return report.step / float(self.options["updates"])
        return report.scalars.get("charts/epoch", 0.0) / float(self.options.get("epochs") or EPOCHS)
