"""A skill's code in the worker that trains it: translated, run under limits, and interrupted if it hangs.

In: a checked module. Out: its functions as a training loop asks for them. Linux only, as the limits are.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from policysmith.errors import SkillError
from policysmith.skills.modules.module_file import SkillModule
from policysmith.skills.modules.tasks import TaskFunctions, task_and_reward_funcs
from policysmith.skills.sandbox.running import Skill
from policysmith.skills.sandbox.translate import translated
from policysmith.skills.walls.walls import Walls, close_calls, close_files

__all__ = ["executed", "limit_files", "raise_walls", "within"]

LARGEST_FILE = 4 << 30
OPEN_FILES = 256


def limit_files() -> None:
    """This process may write no larger file, open no more of them, and leave no core; for good."""
    for kind, value in ((resource.RLIMIT_FSIZE, LARGEST_FILE), (resource.RLIMIT_NOFILE, OPEN_FILES)):
        resource.setrlimit(kind, (value, value))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def raise_walls(folder: Path, also: Iterable[Path] = ()) -> Walls:
    """Around this process, for good: it changes only what lies in `folder` and `also`, runs nothing, asks nobody.

    Call it when the libraries are loaded, and before any code of a skill runs. Returns which walls stand.
    """
    walls: Walls = {}
    devices = [*Path("/dev").glob("nvidia*"), Path("/dev/dri"), Path("/dev/kfd"), Path("/dev/shm")]
    graphics = [Path("/proc/driver"), Path("/sys/bus"), Path("/sys/class"), Path("/sys/devices")]
    close_files(walls, read=graphics, write=[folder, *also, *devices])
    close_calls(walls, files=False)
    return walls


def executed(module: SkillModule, seconds: float = 10.0) -> TaskFunctions:
    """The module's functions. Call this in the worker of its run only. Raises `SkillError` for code that fails.

    `seconds` are for its constants; the libraries that it imports are loaded before.
    """
    skill = Skill(translated(module.source, module.filename))
    with within(seconds, f"{module.filename}: executing the module"):
        try:
            skill.execute()
            return task_and_reward_funcs(skill.functions, skill.explained)
        except Exception as error:
            place, told = skill.explained(error)
            raise SkillError(f"{place or module.filename + ': '}failed: {told}") from error


@contextmanager
def within(seconds: float, doing: str) -> Iterator[None]:
    """Interrupt what is done in this context after so many seconds; in the main thread only.

    Contexts may lie in one another. A single call that computes for hours in C is not interrupted: whoever has started
    this process sees that it tells nothing.
    """

    def ring(number: int, frame: Any) -> None:
        raise SkillError(f"{doing} took longer than {seconds:g} s")

    before, began = signal.signal(signal.SIGALRM, ring), time.monotonic()
    left = signal.setitimer(signal.ITIMER_REAL, seconds)[0]  # of the context around this one
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-3))
