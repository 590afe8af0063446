"""Tries mutations in a copy of the package, never in the tree: each runs the tests that must see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from tests.mutants.planned import Mutant

__all__ = ["copied", "is_seen", "survivors"]

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("policysmith", "tests", "pyproject.toml", "examples", "docs")
FAILED, PASSED = 1, 0  # pytest's exit statuses; any other means that the tests themselves could not be run


@contextmanager
def copied() -> Iterator[Path]:
    """A folder with what the tests need of this one."""
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        for name in NEEDED:
            source, goal = ROOT / name, Path(folder, name)
            if source.is_dir():
                shutil.copytree(source, goal, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, goal)
        yield Path(folder)


def is_seen(mutant: Mutant, folder: Path) -> bool:
    """Whether a test fails with the mutation in the copy; the copy is as it was afterwards.

    Raises `LookupError` where the text does not stand once in the file, `RuntimeError` where the tests can't be run.
    """
    file = folder / "policysmith" / mutant.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant}: the text stands {text.count(mutant.old)} times in the file, expected once")
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, *mutant.tests.split()], cwd=folder, env=environment, capture_output=True, text=True
        )
    finally:
        file.write_text(text, encoding="utf-8")
    if done.returncode not in (FAILED, PASSED):
        raise RuntimeError(f"{mutant}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == FAILED


def next_of(waiting: deque[Mutant]) -> Mutant | None:
    """The next one, taken; None where another thread took the last."""
    try:
        return waiting.popleft()
    except IndexError:
        return None


def survivors(mutants: Sequence[Mutant], workers: int = 2) -> list[str]:
    """What no test saw, and what could not be tried; each is told as soon as it is known."""
    waiting = deque(mutants)
    found: list[str] = []

    def work() -> None:
        with copied() as folder:
            while mutant := next_of(waiting):
                try:
                    told = None if is_seen(mutant, folder) else f"survives: {mutant}"
                except (LookupError, RuntimeError) as error:
                    told = f"not tried: {error}"
                print(told or f"seen: {mutant}", flush=True)
                if told is not None:
                    found.append(told)

    threads = [Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
