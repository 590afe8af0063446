"""Running a skill's code: always in a process of its own, under limits, never in the one that asks.

In: a checked module, and state features as numbers or arrays. Out: what its functions gave. The two processes talk
over pipes; no network is used.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from policysmith.errors import SkillError
from policysmith.skills.modules import worker
from policysmith.skills.modules.module_file import KINDS, SkillModule, parse_skill_module
from policysmith.skills.walls.walls import Walls

__all__ = ["Limits", "SkillProcess", "walls_here"]

START = "import sys; sys.path.insert(0, sys.argv[1]); from policysmith.skills.modules.worker import main; main()"
KNOWN_ENVIRONMENT = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True)
class Limits:
    """What the process may use.

    `seconds` is for one call, and for the module's own constants; `start_seconds` for the start and the libraries that
    the module imports, `processor_seconds` for the whole life;
    `memory` is in bytes beyond what the imports take, `file_bytes` the largest file it may write.
    """

    seconds: float = 10.0
    start_seconds: float = 60.0
    processor_seconds: int = 3600
    memory: int = 1 << 30
    file_bytes: int = 0


class SkillProcess:
    """A module's code in a process: `with SkillProcess(module) as skill: skill.reward(0, features)`.

    Raises `SkillError` for code that fails, takes too long or too much, or ends the process; after the latter three
    the process is gone, and every further call says so. `walls` says what stands around it: name → what, or why not.
    """

    def __init__(self, module: SkillModule, limits: Limits | None = None) -> None:
        if os.name != "posix" or not Path("/proc/self/statm").exists():
            raise SkillError("skills run under limits that this system does not have; Linux is needed")
        self.module, self.limits = module, limits or Limits()
        environment = {name: os.environ[name] for name in KNOWN_ENVIRONMENT if name in os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        # -I: neither the working directory nor the user's own packages are looked at.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", START, str(Path(__file__).parents[3])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._ended: str | None = None
        start = {
            "source": module.source,
            "filename": module.filename,
            "limits": {
                "memory": self.limits.memory,
                "seconds": self.limits.processor_seconds,
                "file_bytes": self.limits.file_bytes,
            },
        }
        try:
            self.walls: Walls = self._ask(start, "starting", self.limits.start_seconds)
            self._ask({"do": "execute", "with": []}, "executing the module", self.limits.seconds)
        except BaseException:
            self.close()
            raise

    def is_done(self, task: int, features: Mapping[str, Any]) -> bool:
        """Whether a task is completed, for one environment."""
        return bool(self._number(self._call(task, "is_done", features), task, "is_done"))

    def reward(self, task: int, features: Mapping[str, Any]) -> float:
        """A task's reward, for one environment."""
        return float(self._number(self._call(task, "reward", features), task, "reward"))

    def network_number(self, task: int) -> int:
        """Which expert a task's function names, as it runs."""
        found = self._call(task, "network_number", {})
        if type(found) is not int:
            raise SkillError(f"{self.module.filename}: task_{task}_network_number gave {found!r}, not a whole number")
        return found

    def value(self, name: str) -> Any:
        """A constant of the module; a dict with keys of any plain type comes as one."""
        found = self._ask({"do": "value", "with": [name]}, f"reading {name}", self.limits.seconds)
        return dict(map(tuple, found)) if isinstance(found, list) and found and isinstance(found[0], list) else found

    def close(self) -> None:
        """End the process, whatever it does."""
        self._end("it was closed")

    def __enter__(self) -> SkillProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, task: int, kind: str, features: Mapping[str, Any]) -> Any:
        if kind not in KINDS or not 0 <= task < len(self.module.tasks):
            raise SkillError(f"{self.module.filename}: has tasks 0 to {len(self.module.tasks) - 1}, found task {task}")
        name = f"task_{task}_{kind}"
        wanted = getattr(self.module.tasks[task], kind, ())
        missing = [feature for feature in wanted if feature not in features] if kind != "network_number" else []
        if missing:
            raise SkillError(f"{self.module.filename}: {name} reads {', '.join(missing)}, which was not given")
        return self._ask({"do": "call", "with": [name, dict(features)]}, name, self.limits.seconds)

    def _number(self, value: Any, task: int, kind: str) -> float:
        if not isinstance(value, int | float) or not math.isfinite(value):
            shown = f"an array of shape {value.shape}" if hasattr(value, "shape") else repr(value)
            raise SkillError(f"{self.module.filename}: task_{task}_{kind} gave {shown}, not a finite number")
        return value

    def _ask(self, message: Any, doing: str, seconds: float) -> Any:
        where = f"{self.module.filename}: {doing}"
        if self._ended is not None:
            raise SkillError(f"{where}: its process has ended: {self._ended}; start another")
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None and writer is not None
        try:
            data = worker.packed(message)
        except (TypeError, ValueError) as error:
            raise SkillError(f"{where}: a feature cannot be sent: {error}; give numbers, texts and arrays") from None
        try:
            writer.write(data)
            writer.flush()
            answer = worker.read_message(_Patient(reader, time.monotonic() + seconds))  # type: ignore[arg-type]
            failed, result, place = answer.get("error"), answer.get("ok"), answer.get("place")
        except TimeoutError:
            self._end(f"{doing} took longer than {seconds:g} s")
            raise SkillError(f"{where} took longer than {seconds:g} s; simplify it or raise the limit") from None
        except (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            self._end(f"{doing} ended it")
            code = self._process.returncode
            raise SkillError(f"{where} ended its process (exit status {code}), as a limit exceeded does") from None
        if failed is not None:
            raise SkillError(f"{place}{doing} failed: {failed}" if place else f"{where} failed: {failed}")
        return result

    def _end(self, why: str) -> None:
        self._ended = self._ended or why
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent bytes
                    stream.close()


def walls_here(limits: Limits | None = None) -> Walls:
    """Which walls stand around skills' code on this system, as a process finds that does nothing else."""
    functions = {"is_done": "False", "reward": "0.0", "network_number": "0"}
    nothing = "\n".join(f"def task_0_{kind}(): return {value}" for kind, value in functions.items())
    with SkillProcess(parse_skill_module(nothing), limits) as process:
        return process.walls


class _Patient:
    """Reads from a pipe until a deadline; TimeoutError then."""

    def __init__(self, pipe: BinaryIO | Any, deadline: float) -> None:
        self._handle, self._deadline = pipe.fileno(), deadline

    def read(self, size: int) -> bytes:
        pieces = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._handle, selectors.EVENT_READ)
            while size:
                left = self._deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise TimeoutError
                piece = os.read(self._handle, min(size, 1 << 20))
                if not piece:
                    break
                pieces.append(piece)
                size -= len(piece)
        return b"".join(pieces)
