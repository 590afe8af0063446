"""Kill training runs by SIGKILL at random moments, resume them to their end, and compare with runs never stopped.

    python scripts/kill_runs.py [--kills 60] [--seed 0]

Each kind of run is trained whole once. Then it is trained in a process that is killed after a random time, resumed,
killed again …, until it ends; weights, returns.csv and evaluations.csv must be those of the whole run, bit for bit,
and what differs is named. After each kill what lies in the folder must load.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

import policysmith
from policysmith.store import load_training
from tests.training.run.test_run import RUNS, train, weights

CHANGES = ["training.checkpoint_every=32", "evaluation.every=64"]
HISTORIES = ("returns.csv", "evaluations.csv")


def in_process(work: Callable[[], None], after: float | None = None) -> int:
    """Do `work` in a forked process, killed after so many seconds; its exit status, -9 if it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    deadline = None if after is None else time.monotonic() + after
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            deadline = None
        time.sleep(0.002)


def go_on(config: dict, place: Path) -> None:
    """Begin the run, or resume it where there is something to resume; one killed after its end has ended."""
    if not (place / "manifest.json").exists():
        train(config, *CHANGES, output=place)
    elif load_training(place).data["step"] < config["training"]["total_steps"]:
        train(None, resume=place)


def differing(place: Path, whole: Path) -> set[str]:
    """What two runs have left that is not the same: of their weights and their histories."""
    found = set() if torch.equal(*(weights(policysmith.load(p)) for p in (place, whole))) else {"weights"}
    return found | {name for name in HISTORIES if (place / name).read_bytes() != (whole / name).read_bytes()}


def main() -> int:
    """Print a line a kind; the exit status is the number of kinds that differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, different, total = random.Random(options.seed), 0, 0
    for kind, make in RUNS.items():
        kills = resumed = 0
        unlike: set[str] = set()
        while kills < -(-options.kills // len(RUNS)):
            with tempfile.TemporaryDirectory() as folder:
                whole, place = Path(folder, "whole"), Path(folder, "run")
                began = time.monotonic()
                assert in_process(lambda make=make, whole=whole: train(make(), *CHANGES, output=whole)) == 0
                took = time.monotonic() - began
                work = partial(go_on, make(), place)
                while (code := in_process(work, dice.uniform(0, took))) != 0:
                    assert code == -signal.SIGKILL, f"{kind}: exit status {code}"
                    kills += 1
                    if (place / "manifest.json").exists():
                        policysmith.load(place), load_training(place)
                        resumed += 1
                unlike |= differing(place, whole)
        found = f"DIFFERENT: {', '.join(sorted(unlike))}" if unlike else "alike"
        print(f"{kind:16} {kills:4} kills, {resumed:4} of them after a first save: {found}", flush=True)
        different, total = different + bool(unlike), total + kills
    print(f"{total} kills, {different} kinds different")
    return different


if __name__ == "__main__":
    sys.exit(main())
