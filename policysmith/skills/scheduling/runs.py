"""What the scheduler does to the disk: run folders are made, found again, and their experts brought home.

In: a skills file and a library. Out: jobs for a launcher, and results. The code of skills is never executed here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from policysmith.errors import PolicysmithError, SkillError
from policysmith.skills.runs.run_files import Result, WorkerRecord, read_result
from policysmith.skills.scheduling.launcher import Job
from policysmith.skills.scheduling.skills_file import SkillsFile
from policysmith.store.files import replace_file

if TYPE_CHECKING:
    from policysmith.skills.runs.processing import Outcome

__all__ = ["Library", "Runs", "SkillRuns", "run_data", "worker_command"]

OVERTIME = 300.0  # seconds that a worker has beyond its own limit, to evaluate and save, before it is taken for hung


class Library(Protocol):
    """What of a `SkillLibrary` the scheduler uses."""

    root: Path

    def expert_of(self, name: str) -> int:
        """The expert of a skill, which is registered at its first use."""
        ...

    def completed(self) -> Mapping[str, Mapping[str, Any]]:
        """Skills that have a head: `{name: {expert_idx, path}}`."""
        ...

    def process(self, run_folder: str | Path) -> list[Outcome]:
        """Bring the experts of a run home, and remove its folder."""
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
        """Bring the experts of a run home."""
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
        self._completed = dict(library.completed())
        self._folders: dict[str, Path] = {}

    def done(self) -> Collection[str]:
        """Skills that have a head in the library."""
        return self._completed.keys()

    def expert(self, skill: str) -> int:
        """The expert that a skill has in the library."""
        return self.library.expert_of(skill)

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
        """Bring the experts of a run home; the next run starts from their heads."""
        for outcome in self.library.process(job.folder):
            self._completed[outcome.skill_name] = {"expert_idx": outcome.expert, "path": outcome.folder}
        self._folders.pop(job.skill, None)

    def _new(self, skill: str) -> Path:
        from policysmith.skills.runs.training_run import prepare_training_run

        said = self.file.skills[skill]
        needed = [name for name in self.file.plans[skill] if name != skill]
        # Of the completed skills only these: what a run costs does not grow with the library.
        completed = {name: self._completed[name] for name in (*needed, skill) if name in self._completed}
        return prepare_training_run(
            skill,
            run_data(self.file, skill),
            needed,
            self.expert(skill),
            completed,
            root=self.library.root,
            train=said.train,
        ).run_folder

    def _refresh(self, skill: str) -> None:
        """Write the file's present settings into a run that goes on; its plan must be the same."""
        from policysmith.skills.runs.training_run import CONFIG, load_training_run

        run = load_training_run(self._folders[skill])
        needed = {name for name in self.file.plans[skill] if name != skill}
        if needed != set(run.about["dependencies"]):
            raise SkillError(
                f"{run.run_folder}: was begun with the dependencies {sorted(run.about['dependencies'])}, and the file "
                f"has {sorted(needed)} now: put the plan back, or remove the folder to begin anew"
            )
        config = {"skill": skill, "num_experts": run.num_experts, **self.file.worker_config(skill)}
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        file = run.run_folder / CONFIG
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            replace_file(file, text.encode())

    def _job(self, skill: str, attempt: int) -> Job:
        folder, said = self._folders[skill], self.file.skills[skill]
        limit = None if said.seconds is None else said.seconds + OVERTIME
        return Job(skill, folder, self._command(folder), attempt, limit, self.file.resources(skill))
