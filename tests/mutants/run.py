"""Tries mutations in copies of the package, never in the tree: each runs the test that must see it.

A try is a fork of a process that has imported what takes seconds (torch), but nothing of the package. The mutation is
on disk before the fork imports the package, so processes that a test starts have it too.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutants.planned import Mutant

__all__ = ["ROOT", "Outcome", "outcomes"]

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("policysmith", "tests", "pyproject.toml", "examples", "docs")
PRELOADED = ("torch.distributed.fsdp", "tensordict", "gymnasium", "hypothesis", "pydantic", "safetensors.torch", "yaml")
# Rewritten asserts say more of a failure, whose name is all that is wanted, and take a second.
OPTIONS = ("-x", "-rfE", "--tb=line", "--assert=plain", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist")
FAILED, PASSED = 1, 0  # pytest's exit statuses; any other means that the tests themselves could not be run


class Try(NamedTuple):
    """Tests to run in a copy with a mutation, or with none: that they pass is what makes a failure mean something."""

    mutant: Mutant | None
    tests: list[str]

    def prepare(self, folder: Path) -> None:
        """Plant the mutation in a copy. Raises `LookupError` where its text does not stand once in the file."""
        if self.mutant is None:
            return
        file = folder / "policysmith" / self.mutant.file
        text = file.read_text(encoding="utf-8")
        if text.count(self.mutant.old) != 1:
            raise LookupError(f"the text stands {text.count(self.mutant.old)} times in the file, expected once")
        file.rename(_kept(file))
        file.write_text(text.replace(self.mutant.old, self.mutant.new), encoding="utf-8")
        os.utime(file, (0, 0))  # or the file compiled before, of the same size and second, could be taken for its own

    def tidy(self, folder: Path) -> None:
        """Make the copy what it was."""
        if self.mutant is not None:
            file = folder / "policysmith" / self.mutant.file
            _kept(file).replace(file)


def _kept(file: Path) -> Path:
    return file.with_suffix(".original")


class Outcome(NamedTuple):
    """What came of a try: whether it went as it must, and which test failed or what stood in the way."""

    tried: Try
    good: bool
    told: str
    seconds: float = 0.0

    def __str__(self) -> str:
        subject = self.tried.mutant or f"{len(self.tried.tests)} tests without a mutation"
        return f"{'as it must be' if self.good else 'NOT SEEN'} ({self.seconds:.1f} s): {subject}\n    {self.told}"


def outcomes(mutants: Sequence[Mutant], workers: int = 2) -> Iterator[Outcome]:
    """Try the tests of all these mutants as they are, then every mutant; each is told as soon as it is known."""
    for name in PRELOADED:
        importlib.import_module(name)
    tests = list(dict.fromkeys(mutant.test for mutant in mutants))
    sound = [Try(None, share) for share in (tests[i::workers] for i in range(workers)) if share]
    waiting = deque([*sound, *(Try(mutant, [mutant.test]) for mutant in mutants)])
    running: dict[int, tuple[Try, Path, float]] = {}
    with ExitStack() as stack:
        free = [stack.enter_context(_copied()) for _ in range(workers)]
        while waiting or running:
            while waiting and free:
                tried, folder = waiting.popleft(), free.pop()
                try:
                    tried.prepare(folder)
                except LookupError as error:
                    free.append(folder)
                    yield Outcome(tried, False, str(error))
                else:
                    running[_start(tried, folder)] = tried, folder, time.monotonic()
            if running:
                pid, status = os.wait()
                tried, folder, begun = running.pop(pid)
                yield _outcome(tried, os.waitstatus_to_exitcode(status), folder, time.monotonic() - begun)
                tried.tidy(folder)
                free.append(folder)


def _outcome(tried: Try, status: int, folder: Path, seconds: float) -> Outcome:
    text = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
    failed = [line for line in text.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if status == PASSED:
        return Outcome(tried, tried.mutant is None, f"passes: {text.splitlines()[-1]}", seconds)
    told = "; ".join(failed)[:300] if status == FAILED else f"pytest ended with {status}\n{text[-2000:]}"
    return Outcome(tried, tried.mutant is not None and status == FAILED, told, seconds)


@contextmanager
def _copied() -> Iterator[Path]:
    """A folder with what the tests need of this one, compiled files with them."""
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        for name in NEEDED:
            source, goal = ROOT / name, Path(folder, name)
            if source.is_dir():
                shutil.copytree(source, goal)
            elif source.exists():
                shutil.copy2(source, goal)
        yield Path(folder)


def _start(tried: Try, folder: Path) -> int:
    """Run the tests in a fork, whose process id is returned; what they print is in `output.txt` of the copy."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = -1
    try:
        _move_to(folder)
        sys.dont_write_bytecode = tried.mutant is not None
        status = int(pytest.main([*OPTIONS, f"--basetemp={folder / 'temporary'}", *tried.tests]))
        sys.stdout.flush()
    finally:
        os._exit(status & 0xFF)  # nothing of the parent's is to be tidied up by its fork


def _move_to(folder: Path) -> None:
    """Let this process, and those that it starts, know the package and the tests from a copy alone."""
    os.chdir(folder)
    output = os.open("output.txt", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(output, stream)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("policysmith", "tests")]:
        del sys.modules[name]
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path).resolve() != ROOT)]
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    importlib.invalidate_caches()
