"""The study behind a search: optuna's, in an SQLite file, so that it can go on and several processes can share it.

In: a search. Out: trials to be played, and what is known of those that were.
"""

from __future__ import annotations

import importlib
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from policysmith.config.search_spaces import Space
from policysmith.errors import CheckpointError, PolicysmithError, missing_extra
from policysmith.store.locks import HAVE_LOCKS
from policysmith.tuning.search import Search

__all__ = [
    "REASON",
    "STAGES",
    "Trial",
    "ask",
    "best_of",
    "held",
    "load_optuna",
    "open_study",
    "put_back",
    "take_up",
    "trials_of",
    "values_of",
]

FILE, NAME = "study.sqlite3", "policysmith"
IDENTITY, INTERRUPTED, REASON = "search", "interrupted", "reason"
PATIENCE = 60  # seconds that a process waits for another to let go of the file
STAGES = 20  # of a trial's training, after each of which it may be given up
STARTUP = 4  # whole trials before one is given up by the median


@dataclass(frozen=True)
class Trial:
    """What is known of a trial: its `state` is complete, pruned or failed; `reason` says why it failed."""

    number: int
    state: str
    values: Mapping[str, Any]
    value: float | None = None
    seconds: float | None = None
    reason: str | None = None


def load_optuna() -> Any:
    """The package, quiet; raises where it is not installed."""
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError as error:
        raise missing_extra("optuna", "tune") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_study(search: Search, worker: int = 0) -> Any:
    """The search's study, begun where there is none; raises `CheckpointError` for one of another search."""
    optuna = load_optuna()
    file = search.output / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{file}", engine_kwargs={"connect_args": {"timeout": PATIENCE}})
        study = optuna.create_study(
            storage=storage, study_name=NAME, direction=search.direction, load_if_exists=True, pruner=_pruner(search)
        )
    except Exception as error:  # of the data base, by whatever name
        raise CheckpointError(f"{file}: cannot be opened as a study: {type(error).__name__}: {error}") from error
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(IDENTITY, search.identity)
    elif known != search.identity:
        raise CheckpointError(
            f"{search.output} holds the search of another configuration or metric: choose another --output, "
            "or go back to what it began with"
        )
    study.sampler = _sampler(search, worker, len(study.get_trials(deepcopy=False)))
    return study


def ask(study: Any, spaces: Sequence[Space]) -> Any:
    """The next trial, whose `params` are told by `values_of`."""
    distributions = {space.name: _distribution(space) for space in spaces}
    return study.ask(distributions)


def values_of(params: Mapping[str, Any], spaces: Sequence[Space]) -> dict[str, Any]:
    """A trial's parameters as values of the configuration, by the spaces' names."""
    return {
        space.name: params[space.name] if space.range else json.loads(params[space.name])
        for space in spaces
        if space.name in params
    }


def put_back(study: Any, number: int, params: Mapping[str, Any]) -> None:
    """End a trial that was not played to its end, and have its values tried next."""
    study.set_user_attr(f"{INTERRUPTED}/{number}", True)
    study.tell(number, state=_state("FAIL"))
    study.enqueue_trial(dict(params))


def take_up(study: Any) -> None:
    """Put back what a killed process has left running; nobody else may be at work."""
    for trial in study.get_trials(deepcopy=False, states=(_state("RUNNING"),)):
        put_back(study, trial.number, trial.params)


def trials_of(study: Any, spaces: Sequence[Space]) -> list[Trial]:
    """All trials that have ended, in their order; those that were put back are left out."""
    states = {_state("COMPLETE"): "complete", _state("PRUNED"): "pruned", _state("FAIL"): "failed"}
    interrupted = study.user_attrs
    return [
        Trial(
            trial.number,
            states[trial.state],
            values_of(trial.params, spaces),
            trial.value,
            _seconds(trial.datetime_start, trial.datetime_complete),
            trial.user_attrs.get(REASON),
        )
        for trial in study.get_trials(deepcopy=False, states=tuple(states))
        if f"{INTERRUPTED}/{trial.number}" not in interrupted
    ]


def best_of(trials: Sequence[Trial], direction: str) -> Trial | None:
    """The best of those that are complete, among equals the first."""
    sign = 1.0 if direction == "minimize" else -1.0
    whole = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return min(whole, key=lambda trial: (sign * float(trial.value or 0), trial.number), default=None)


@contextmanager
def held(output: Path) -> Iterator[None]:
    """The folder for this search alone, until the process ends; raises `PolicysmithError` where another is at it."""
    if not HAVE_LOCKS:
        yield
        return
    import fcntl

    output.mkdir(parents=True, exist_ok=True)
    handle = os.open(output / "search.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another search is at work in {output}: wait for it, or give one search more --workers"
            raise PolicysmithError(message) from None
        yield
    finally:
        os.close(handle)  # which lets go of the lock


def _distribution(space: Space) -> Any:
    """What optuna calls the space; choices are told by their JSON, for it takes only scalars."""
    found = load_optuna().distributions
    if space.range is None:
        return found.CategoricalDistribution([json.dumps(choice) for choice in space.choices])
    low, high, log, step = space.range.low, space.range.high, space.range.log, space.range.step
    if space.range.whole:
        return found.IntDistribution(low, high, log=log, step=step or 1)
    return found.FloatDistribution(float(low), float(high), log=log, step=step)


def _sampler(search: Search, worker: int, count: int) -> Any:
    """Seeded by where the search is, so that one that goes on draws what it has not drawn yet."""
    samplers = load_optuna().samplers
    seed = random.Random(f"{search.seed}/{count}/{worker}").getrandbits(31)
    return samplers.RandomSampler(seed=seed) if search.sampler == "random" else samplers.TPESampler(seed=seed)


def _pruner(search: Search) -> Any:
    pruners = load_optuna().pruners
    if search.pruner == "none":
        return pruners.NopPruner()
    if search.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=STAGES)
    return pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=STAGES // 10)


def _state(name: str) -> Any:
    return load_optuna().trial.TrialState[name]


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None
