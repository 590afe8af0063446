"""What works through the trials: this process, or several that share the study.

In: a search and how many trials are left. Out: a study that knows more.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from policysmith.errors import PolicysmithError
from policysmith.registry import load_plugin_file
from policysmith.training.process.signals import graceful_stop, interrupts_ignored
from policysmith.tuning.search import Search
from policysmith.tuning.study import (
    REASON,
    Trial,
    ask,
    best_of,
    load_optuna,
    open_study,
    put_back,
    trials_of,
    values_of,
)
from policysmith.tuning.trial_run import POLICY, Stopped, play

__all__ = ["Told", "folder_of", "share", "work"]

Told = Callable[[Sequence[Trial]], None]
"""Told the trials that have ended since it was last told."""
LOOK = 0.5  # seconds between two looks at what workers have done


def folder_of(output: Path, number: int) -> Path:
    """Where a trial's configuration lies, and its policy while it may be the best."""
    return output / "trials" / f"{number:04}"


def work(
    search: Search, study: Any, claim: Callable[[], bool], told: Told | None = None, ends: Callable[[], bool] = bool
) -> bool:
    """Play trials while `claim()` gives one; True where Ctrl-C stopped it. What fails is noted, and is not fatal.

    Where `ends()` becomes true the present trial is put back.
    """
    news = _News(search, study, told)
    with graceful_stop() as stop:
        while not stop.is_set() and claim():
            try:
                _one(search, study, ends)
            except (Stopped, KeyboardInterrupt):
                return True
            news.tell()
        return stop.is_set()


def share(search: Search, count: int, workers: int, plugins: Sequence[Path], told: Told | None = None) -> bool:
    """Play `count` trials in `workers` processes of their own; True where Ctrl-C stopped them."""
    context = multiprocessing.get_context("spawn")
    tickets, stopped = context.Semaphore(count), context.Event()
    made = [
        context.Process(target=_work_on, args=(search, number, tickets, stopped, list(plugins)), daemon=True)
        for number in range(1, min(workers, count) + 1)
    ]
    news = _News(search, open_study(search), told)
    with graceful_stop() as stop:
        with interrupts_ignored():
            for process in made:
                process.start()
        while alive := [process.sentinel for process in made if process.is_alive()]:
            if stop.is_set():
                stopped.set()
            wait(alive, LOOK)
            news.tell()
        interrupted = stop.is_set()
    lost = [process.exitcode for process in made if process.exitcode]
    if lost and len(lost) == len(made) and not interrupted:
        raise PolicysmithError(f"every worker ended early (exit codes {lost}): run again to go on with the search")
    return interrupted


class _News:
    """Tells of each trial once, after it has ended; in which order they end is not that of their numbers."""

    def __init__(self, search: Search, study: Any, told: Told | None) -> None:
        self._search, self._study, self._told = search, study, told
        self._known = {trial.number for trial in trials_of(study, search.spaces)}

    def tell(self) -> None:
        """Of those that have ended since the last call."""
        if self._told is None:
            return
        new = [trial for trial in trials_of(self._study, self._search.spaces) if trial.number not in self._known]
        self._known |= {trial.number for trial in new}
        if new:
            self._told(new)


def _work_on(search: Search, number: int, tickets: Any, stopped: Any, plugins: list[Path]) -> None:
    """The life of a worker."""
    for file in plugins:
        load_plugin_file(file)
    leader = multiprocessing.parent_process()

    def ends() -> bool:
        return stopped.is_set() or (leader is not None and not leader.is_alive())

    study = open_study(search, number)
    work(search, study, lambda: not ends() and tickets.acquire(block=False), ends=ends)


def _one(search: Search, study: Any, ends: Callable[[], bool]) -> None:
    optuna = load_optuna()
    trial = ask(study, search.spaces)
    folder = folder_of(search.output, trial.number)

    def tell(worth: float, stage: int) -> None:
        trial.report(worth, stage)
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        value = play(search, values_of(trial.params, search.spaces), folder, tell, ends)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except (Stopped, KeyboardInterrupt):
        put_back(study, trial.number, trial.params)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:  # whatever an environment or a part may raise
        trial.set_user_attr(REASON, f"{type(error).__name__}: {str(error).strip()}")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, value)
    _make_lean(search, study)


def _make_lean(search: Search, study: Any) -> None:
    """Of trials that have ended keep the best one's policy alone; one that is not the best will never be."""
    trials = trials_of(study, search.spaces)
    best = best_of(trials, search.direction)
    for trial in trials:
        if trial is not best:
            shutil.rmtree(folder_of(search.output, trial.number) / POLICY, ignore_errors=True)
