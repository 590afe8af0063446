"""What the scheduler does to the disk: run folders are made and found again, experts of ended runs are stored.

In: a skills file and a library. Out: jobs for a launcher, and results. The code of skills is never executed here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from policysmith.errors import PolicysmithError, SkillError
from policysmith.skills.runs.run_files import Result, WorkerRecord, read_result
from policysmith.skills.scheduling.launcher import Job
from policysmith.skills.scheduling.skills_file import SkillsFile
from policysmith.store.files import replace_file

if TYPE_CHECKING:
    from policysmith.skills.runs.completed_training import Outcome
    from policysmith.skills.runs.training_run import TrainingRun

__all__ = ["Library", "Runs", "SkillRuns", "run_data", "worker_command"]

OVERTIME = 300.0  # seconds that a worker has beyond its own limit, to evaluate and save, before it is taken for hung
SILENCE = 1500.0  # seconds between a worker's signs of life at most; it allows itself 600 for all that it tells of


class Library(Protocol):
    """What of a `SkillLibrary` the scheduler uses."""

    root: Path

    def expert_of(self, name: str) -> int:
        """The expert of a skill, which is registered at its first use."""
        ...

    def completed(self) -> Mapping[str, Mapping[str, Any]]:
        """Skills that have a head: `{name: {expert_idx, path}}`."""
        ...

    def prepare(
        self,
        skill_name: str,
        skill_data: Mapping[str, Any],
        dependencies: Iterable[str],
        *,
        train: Collection[str] = (),
        execute: bool = True,
    ) -> TrainingRun:
        """Make the folder of a run; with `execute=False` nothing of the skill's code is run."""
        ...

    def process(self, run_folder: str | Path) -> list[Outcome]:
        """Store the experts of an ended run in the library, and remove its folder."""
        ...


class Runs(Protocol):
    """What the scheduler needs of the disk."""

    def done(self) -> Collection[str]:
        """Skills that are trained."""
        ...

    def expert(self, skill: str) -> int:
        """The expert that a skill has in the library."""
        ...

    def unfinished(self) -> Mapping[str, Job]:
        """Runs that an earlier scheduler has left, each with the latest attempt."""
        ...

    def prepare(self, skill: str, attempt: int) -> Job:
        """A job for the skill's run, which is made if there is none."""
        ...

    def result(self, job: Job) -> Result | None:
        """How a run ended; None if it has not."""
        ...

    def finish(self, job: Job) -> None:
        """Store the experts of an ended run in the library."""
        ...


def worker_command(run_folder: Path) -> tuple[str, ...]:
    """What starts a worker in a run's folder."""
    return (sys.executable, "-m", "policysmith.skills.training", str(run_folder))


def run_data(file: SkillsFile, skill: str) -> dict[str, Any]:
    """A skill as `prepare_training_run` takes it: its plan, the code of the skills in it, and what a worker is told."""
    return {
        "execution_plan": file.steps(skill),
        "codes": {name: file.codes[name] for name in dict.fromkeys(file.plans[skill])},
        "config": file.worker_config(skill),
    }


class SkillRuns:
    """The runs of a skills file in a library; `command` gives the words that start a worker in a folder."""

    def __init__(
        self, file: SkillsFile, library: Library, command: Callable[[Path], tuple[str, ...]] = worker_command
    ) -> None:
        self.file, self.library, self._command = file, library, command
        self._done = set(library.completed())
        self._folders: dict[str, Path] = {}
        self._experts: dict[str, int] = {}

    def done(self) -> Collection[str]:
        """Skills that have a head in the library."""
        return self._done

    def expert(self, skill: str) -> int:
        """The expert that a skill has in the library, for good."""
        if skill not in self._experts:
            self._experts[skill] = self.library.expert_of(skill)
        return self._experts[skill]

    def unfinished(self) -> Mapping[str, Job]:
        """Runs of this file's skills that lie in the library's `training_runs/`."""
        from policysmith.skills.runs.training_run import load_training_run

        found = sorted((self.library.root / "training_runs").glob("skill_*"))
        for folder in found:
            try:
                skill = str(load_training_run(folder).about["skill_name"])
            except PolicysmithError:
                continue  # no run, or not whole: `prepare` says so if it is in the way
            if skill in self.file.skills:
                self._folders[skill] = folder
        records = {skill: WorkerRecord.read(folder) for skill, folder in self._folders.items()}
        return {skill: self._job(skill, record.attempt if record else 0) for skill, record in records.items()}

    def prepare(self, skill: str, attempt: int) -> Job:
        """A job for the skill's run; one that lies there goes on, under the file's present settings."""
        if skill not in self._folders:
            self._folders[skill] = self._new(skill)
        else:
            self._refresh(skill)
        return self._job(skill, attempt)

    def result(self, job: Job) -> Result | None:
        """How a run ended; None if it has not."""
        return read_result(job.folder)

    def finish(self, job: Job) -> None:
        """Store the experts of an ended run in the library; the next run starts from their heads."""
        self._done.update(outcome.skill_name for outcome in self.library.process(job.folder))
        self._folders.pop(job.skill, None)

    def _new(self, skill: str) -> Path:
        train = self.file.skills[skill].train
        needed = [name for name in self.file.plans[skill] if name != skill]
        # The worker runs the module and compares what it says with its text; this process runs none of it.
        run = self.library.prepare(skill, run_data(self.file, skill), needed, train=train, execute=False)
        self._experts[skill] = run.about["global_expert_idx"]
        return run.run_folder

    def _refresh(self, skill: str) -> None:
        """Write the file's present settings and code into a run that goes on; its experts must be the same."""
        from policysmith.skills.modules.generate import PlanStep, generate_module
        from policysmith.skills.modules.inject import inject_remapping
        from policysmith.skills.runs.training_run import CONFIG, config_bytes, load_training_run

        run = load_training_run(self._folders[skill])
        experts = {name: self.expert(name) for name in dict.fromkeys(self.file.plans[skill])}
        _check_same(run, "dependencies", run.about["dependencies"], [name for name in experts if name != skill])
        began = [name for name, expert in experts.items() if expert in run.trained and name != skill]
        _check_same(run, "dependencies that learn", began, self.file.skills[skill].train)
        config = {"skill": skill, "num_experts": run.num_experts, **self.file.worker_config(skill)}
        plan = [PlanStep(**step) for step in self.file.steps(skill)]
        module = inject_remapping(generate_module(plan, self.file.codes, experts), *run.remap, execute=False)
        for file, content in ((run.run_folder / CONFIG, config_bytes(config)), (run.module_path, module.encode())):
            if not file.is_file() or file.read_bytes() != content:
                replace_file(file, content)

    def _job(self, skill: str, attempt: int) -> Job:
        folder, said = self._folders[skill], self.file.skills[skill]
        limit = None if said.seconds is None else said.seconds + OVERTIME
        return Job(skill, folder, self._command(folder), attempt, limit, self.file.resources(skill), SILENCE)


def _check_same(run: TrainingRun, what: str, began: Collection[str], now: Collection[str]) -> None:
    """Raise for a run that was begun otherwise than the file says now: it holds other experts."""
    if set(began) != set(now):
        raise SkillError(
            f"{run.run_folder}: was begun with the {what} {sorted(began)}, and the file has {sorted(now)} now: put "
            "the plan back, or remove the folder to begin anew"
        )
