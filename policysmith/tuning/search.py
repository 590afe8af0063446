"""What a search looks for: a configuration with spaces, checked choice by choice before the first trial.

In: a document. Out: a `Search`, which other processes can be given, or one error with the problems of every choice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from policysmith import api
from policysmith.config.experiment import Experiment, decode_experiment, in_text_order, section_failures
from policysmith.config.inline_files import inline_files
from policysmith.config.load import Document, dotted
from policysmith.config.search_spaces import Space, fill, find_spaces
from policysmith.errors import ConfigError, Problem
from policysmith.registry import Registry, default_registry
from policysmith.training.offline.dataset_section import place_dataset
from policysmith.training.sections import Environment

__all__ = ["METRICS", "Metric", "Pruner", "Sampler", "Search", "is_offline", "make_search"]

Metric = Literal["return", "evaluation", "validation-loss"]
Sampler = Literal["tpe", "random"]
Pruner = Literal["median", "hyperband", "none"]
METRICS = ("return", "evaluation", "validation-loss")


@dataclass(frozen=True)
class Search:
    """A search: what is tried, by what it is judged, and how the next trial is chosen; fit to be pickled."""

    document: Document
    spaces: tuple[Space, ...]
    metric: Metric
    sampler: Sampler
    pruner: Pruner
    seed: int
    output: Path
    offline: bool

    @property
    def direction(self) -> str:
        """Whether more of the metric is better."""
        return "minimize" if self.metric == "validation-loss" else "maximize"

    @property
    def identity(self) -> str:
        """A hash of what must not change while trials are added."""
        spaces = [(space.name, repr(space.choices), repr(space.range)) for space in self.spaces]
        text = json.dumps([self.document.data, spaces, self.metric], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def experiment(self, values: dict[str, Any], registry: Registry = default_registry) -> Experiment:
        """The experiment with a value for each space, by its name; raises `ConfigError` where it does not fit."""
        filled = fill(self.document, [(space, None, values[space.name]) for space in self.spaces])
        return place_dataset(decode_experiment(filled, registry))


def make_search(
    document: Document,
    base_dir: str | Path | None,
    registry: Registry,
    *,
    metric: Metric | None,
    sampler: Sampler,
    pruner: Pruner,
    seed: int,
    output: Path,
) -> Search:
    """Find the spaces of a document and try each of their choices; raises `ConfigError` with all that do not fit."""
    document = inline_files(document, registry, base_dir)
    spaces = find_spaces(document, lambda tried: section_failures(tried, registry))
    if not spaces:
        message = "there is no search space: write {tune: […]} in the place of a value, such as a learning_rate"
        raise ConfigError([Problem("", message)])
    found, offline = _try_all(document, spaces, registry)
    if found:
        raise ConfigError(in_text_order(document, found))
    chosen = metric or ("validation-loss" if offline else "return")
    _check_metric(document, chosen, offline)
    return Search(document, tuple(spaces), chosen, sampler, pruner, seed, output.absolute(), offline)


def is_offline(experiment: Experiment) -> bool:
    """Whether its policy learns from recorded data."""
    return experiment["training"] is not None and bool(experiment["training"].entry.traits.get("offline"))


def _try_all(document: Document, spaces: Sequence[Space], registry: Registry) -> tuple[list[Problem], bool]:
    """Problems of every choice, each beside the first choices of the others; and whether all of it is offline."""
    firsts = [(space, *space.options()[0]) for space in spaces]
    base, offline = _problems(fill(document, firsts), registry)
    found = {(p.path, p.message): p for p in _as_written(base, spaces, firsts)}
    for index, space in enumerate(spaces):
        for key, value in space.options()[1:]:
            chosen = [*firsts[:index], (space, key, value), *firsts[index + 1 :]]
            problems, kind = _problems(fill(document, chosen), registry)
            if not problems and not base and kind != offline:
                message = f"{value!r} and another choice differ in whether they learn from recorded data"
                problems = [document.problem(space.paths[0], message)]
            new = [p for p in problems if p not in base]
            for p in _as_written(new, spaces, chosen):
                beside = "" if ".tune." in p.path else f" (with {space.name}={value!r})"
                found.setdefault((p.path, p.message), replace(p, message=p.message + beside))
    return list(found.values()), offline


def _problems(document: Document, registry: Registry) -> tuple[list[Problem], bool]:
    """What is wrong with a document without spaces, and whether it is of offline training."""
    try:
        experiment = place_dataset(decode_experiment(document, registry))
    except ConfigError as error:
        return list(error.problems), False
    if experiment["training"] is None:
        return [document.problem(("training",), "this section is required to tune")], False
    if experiment.find(Environment) is None and not is_offline(experiment):
        return [document.problem(("environment",), "this section is required to train: {id: CartPole-v1}")], False
    problems = api.check(experiment.resolved(), registry=registry)
    return [document.problem(_path(p.path), p.message) for p in problems], is_offline(experiment)


def _as_written(
    problems: Sequence[Problem], spaces: Sequence[Space], chosen: Sequence[tuple[Space, str | int, Any]]
) -> list[Problem]:
    """Problems with the paths that the text has: `model.hidden.0` of the third choice is `model.hidden.tune.2.0`."""
    result = []
    for problem in problems:
        for space, key, _ in chosen:
            for path in map(dotted, space.paths):
                if problem.path == path or problem.path.startswith(f"{path}."):
                    below = problem.path.removeprefix(path)
                    problem = replace(problem, path=f"{path}.tune.{key}{below}")
                    break
        result.append(problem)
    return result


def _check_metric(document: Document, metric: str, offline: bool) -> None:
    """Raise `ConfigError` where trials could not tell the metric."""
    training, evaluated = document.data.get("training", {}), "environment" in document.data
    if metric == "return" and offline:
        raise ConfigError("recorded data has no returns of the policy: take the metric validation-loss or evaluation")
    if metric == "evaluation" and not evaluated:
        raise ConfigError("the metric evaluation needs an environment to play in: write the section, or take another")
    if metric == "validation-loss" and not offline:
        raise ConfigError("who learns by playing has no validation loss: take the metric return or evaluation")
    if metric == "validation-loss" and isinstance(training, dict) and training.get("validation_share", 0.1) == 0:
        message = "the metric validation-loss needs held-out episodes: write a share, or take the metric evaluation"
        raise ConfigError([document.problem(("training", "validation_share"), message)])


def _path(text: str) -> tuple[str | int, ...]:
    return tuple(int(key) if key.isdigit() else key for key in text.split(".") if key)
