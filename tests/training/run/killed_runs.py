"""Runs that are killed by SIGKILL at random moments, resumed to their end, and compared with runs never stopped.

In: a kind of run, and how often to kill it. Out: where the kills fell, and the names of whatever differs. Runs are
forked from a server that has imported everything, so that none pays for it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import policysmith
import policysmith.training.logging.plots  # what a run imports at its end, once for all of them
from policysmith import api
from policysmith.store import load_training
from policysmith.training.datasets.memmap import write_episodes
from tests.training.offline_data import config as offline
from tests.training.offline_data import walk
from tests.training.run.resumable_runs import playing, recurrent, self_playing, train

__all__ = ["KINDS", "Found", "kill"]

MLP = {"type": "mlp", "hidden": [8]}
POLL = 0.002
PATIENCE = 120.0  # seconds until a run that saves nothing counts as stuck
HISTORIES = ("returns.csv", "evaluations.csv", "losses.csv")
CHANGES = {"loggers": ["json_lines"]}


def _online(config: dict[str, Any], steps: int, every: int) -> dict[str, Any]:
    training = config["training"] | CHANGES | {"total_steps": steps, "checkpoint_every": every}
    return config | {"training": training, "evaluation": config["evaluation"] | {"every": 4 * every}}


def _offline(folder: Path) -> dict[str, Any]:
    data = {"type": "memmap", "path": str(folder / "data")}
    options = {"updates": 480, "checkpoint_every": 40, "report_every": 30, "ema": 0.9}
    return offline("iql", dataset=data, **options, **CHANGES)


def _mlp(**section: str) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: _online(playing(MLP, **section), 1488, 96)


def _lstm(**section: str) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: _online(recurrent(**section), 1008, 96)


KINDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "mlp sync next_step": _mlp(vectorization="sync", autoreset="next_step"),
    "mlp sync same_step": _mlp(vectorization="sync", autoreset="same_step"),
    "mlp async next_step": _mlp(vectorization="async", autoreset="next_step"),
    "mlp async same_step": _mlp(vectorization="async", autoreset="same_step"),
    "lstm sync same_step": _lstm(vectorization="sync", autoreset="same_step"),
    "lstm async next_step": _lstm(vectorization="async", autoreset="next_step"),
    "games": lambda folder: _online(self_playing(), 2624, 256),
    "offline": _offline,
}


@dataclass
class Found:
    """Where kills fell (before a first checkpoint, between two, after the last save), and what is not alike."""

    kills: int = 0
    before: int = 0
    between: int = 0
    after: int = 0
    runs: int = 0
    unlike: list[str] = field(default_factory=list)


def kill(kind: str, kills: int, folder: Path, dice: random.Random) -> Found:
    """Kill runs of that kind so many times between their first checkpoint and their last save.

    Each is killed up to three times, and resumed to its end. Raises AssertionError where one does not end well.
    """
    config, found, whole = KINDS[kind](folder), Found(), _Run(kind, folder, "whole")
    every = config["training"]["checkpoint_every"]
    if kind == "offline" and not (folder / "data").exists():
        write_episodes(folder / "data", walk())
    spread = whole.timed()
    total = load_training(whole.place).data["step"]
    while found.between < kills:
        run = _Run(kind, folder, f"run-{found.runs}")
        for again in range(dice.choice((1, 1, 2, 3))):
            if found.between < kills and not (again and run.step == total):
                begun = run.step or 0
                if again and dice.random() < 0.5:  # at any time, also while it is brought back
                    step = run.killed(None, dice.uniform(0.0, spread * (1.0 - begun / total)))
                else:
                    saves = range(begun + every, total, every) or [total]
                    step = run.killed(dice.choice(saves), dice.uniform(0.0, spread * every / total))
                _count(found, step, total)
        run.finish(total)
        found.unlike += [f"run {found.runs}: {what}" for what in _differing(run.place, whole.place)]
        found.runs += 1
    assert config == KINDS[kind](folder), "a run has changed its configuration"
    return found


def _count(found: Found, step: int | None, total: int) -> None:
    found.kills += 1
    found.before += not step
    found.between += bool(step) and step != total
    found.after += step == total


class _Run:
    """One run in its folder, in as many processes as it takes."""

    def __init__(self, kind: str, folder: Path, name: str) -> None:
        self.kind, self.folder, self.place = kind, folder, folder / name

    @property
    def step(self) -> int | None:
        """The step of the latest checkpoint; None before there is one."""
        try:
            return int(json.loads((self.place / "training_state.json").read_text())["step"])
        except (OSError, ValueError):  # none yet, or it is being put in its place
            return None

    def timed(self) -> float:
        """Train without a stop; the seconds from the first checkpoint to the end."""
        process = self._begun()
        self._await_checkpoint(process, 1)
        began = time.monotonic()
        process.join()
        assert process.exitcode == 0, f"{self.kind}: exit status {process.exitcode}"
        return time.monotonic() - began

    def killed(self, at: int | None, after: float) -> int | None:
        """Begin it, or go on; kill it so many seconds after its checkpoint `at`, or its start. The step it came to."""
        process = self._begun()
        if at is not None:
            self._await_checkpoint(process, at)
        process.join(after)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), f"{self.kind}: exit status {process.exitcode}"
        with suppress(ProcessLookupError):  # workers of environments that have not noticed yet
            os.killpg(process.pid, signal.SIGKILL)
        if (step := self.step) is not None:
            policysmith.load(self.place), load_training(self.place)
        return step

    def finish(self, total: int) -> None:
        """Go on to the end, if it is not there yet."""
        if self.step != total:
            process = self._begun()
            process.join()
            assert process.exitcode == 0, f"{self.kind}: a resumed run ended with exit status {process.exitcode}"

    def _begun(self) -> Any:
        process = SERVER.Process(target=_go_on, args=(self.kind, self.folder, self.place))
        process.start()
        return process

    def _await_checkpoint(self, process: Any, step: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while process.is_alive() and (self.step or 0) < step:
            assert time.monotonic() < deadline, f"{self.kind}: no checkpoint after {PATIENCE:g} s"
            time.sleep(POLL)


SERVER: Any = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])


def _go_on(kind: str, folder: Path, place: Path) -> None:
    """Begin a run, or resume it where there is something to resume."""
    os.setpgid(0, 0)
    multiprocessing.set_start_method("fork", force=True)  # of environments' workers, as a run has it by itself
    config, resumes = KINDS[kind](folder), (place / "manifest.json").exists()
    options = {"resume": place} if resumes else {"output": place}
    if kind == "offline":
        result: Any = api.train_offline(None if resumes else config, progress=False, **options)
    else:
        result = train(None if resumes else config, **options)
    assert not [note for note in result.notes if "resumed" in note], result.notes


def _differing(place: Path, whole: Path) -> list[str]:
    """What two runs have left that is not the same: weights, moments, generators, counts, histories and logs."""
    one, other = (policysmith.load(path).state_dict() for path in (place, whole))
    found = [f"weights of {name}" for name in other if not torch.equal(one[name], other[name])]
    ours, theirs = (load_training(path) for path in (place, whole))
    names = {*ours.tensors, *theirs.tensors}
    found += [name for name in names if not _equal(ours.tensors.get(name), theirs.tensors.get(name))]
    found += [key for key in {*ours.data, *theirs.data} if ours.data.get(key) != theirs.data.get(key)]
    files = [name for name in HISTORIES if (whole / name).exists()]
    found += [name for name in files if (place / name).read_bytes() != (whole / name).read_bytes()]
    return found + (["metrics.jsonl"] if _logged(place) != _logged(whole) else [])


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def _logged(place: Path) -> list[Mapping[str, Any]]:
    """The reports of a run, without what tells of the machine."""
    lines = (place / "logs" / "metrics.jsonl").read_text().splitlines()
    return [{tag: value for tag, value in json.loads(line).items() if tag != "charts/SPS"} for line in lines]
