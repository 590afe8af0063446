"""Training the skills of a file from beginning to end: library, launcher and scheduler put together.

In: a checked skills file. Out: a `SkillsReport`. One scheduler at a time works on a library.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from policysmith.errors import SkillError, did_you_mean
from policysmith.registry import PartSpec
from policysmith.skills.scheduling.display import Display
from policysmith.skills.scheduling.scheduler import Rules, Scheduler
from policysmith.skills.scheduling.skill_runs import Library, SkillRuns, worker_command
from policysmith.skills.scheduling.skills_file import SkillsFile
from policysmith.skills.scheduling.status import SkillsReport
from policysmith.store.locks import Lock

__all__ = ["train_skills"]


def train_skills(
    file: SkillsFile,
    *,
    parallel: int | None = None,
    only: Collection[str] | None = None,
    display: Display | None = None,
    stop: threading.Event | None = None,
    library: Library | None = None,
    command: Callable[[Path], tuple[str, ...]] = worker_command,
) -> SkillsReport:
    """Train the skills of a file that are not trained yet, or those in `only` and what they need.

    `parallel` is in place of the file's; once `stop` is set, workers save and end. `command` gives the words that start
    a worker in a run's folder. Raises `SkillError` where another scheduler works on the library, or `only` names none.
    """
    for name in only or ():
        if name not in file.skills:
            raise SkillError(f"there is no skill {name!r}{did_you_mean(name, file.skills)}: {', '.join(file.skills)}")
    settings, needs = file.scheduler, file.needs
    assert isinstance(settings.launcher, PartSpec)
    file.library.mkdir(parents=True, exist_ok=True)
    with _alone(file.library):
        runs = SkillRuns(file, library if library is not None else _library(file.library), command)
        launcher = settings.launcher.build()
        priority = {name: skill.priority for name, skill in file.skills.items()}
        rules = Rules(parallel or settings.parallel, settings.retries, settings.backoff, file.seed, priority)
        display = display or Display(enabled=False)
        scheduler = Scheduler(needs, runs, launcher, rules, only=only, tell=display.tell, tick=display.tick)
        display.watch(scheduler, needs)
        try:
            with display:
                return scheduler.run(stop)
        finally:
            launcher.close()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the lock of the library's scheduler."""
    with ExitStack() as stack:
        try:
            stack.enter_context(Lock(root / ".scheduler").alone(wait=False))
        except BlockingIOError:
            raise SkillError(f"{root}: another scheduler is training skills here; wait for its end") from None
        yield


def _library(root: Path) -> Library:
    from policysmith.skills import SkillLibrary

    found: Library = SkillLibrary(root)
    return found
