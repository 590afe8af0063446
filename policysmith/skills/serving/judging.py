"""How well a trained skill does: whole plans played in a worker of its own, with the experts that are heads now.

In: a checked skills file and a skill of it. Out: a `Judgement`; the library is read, and nothing in it changes.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from policysmith.errors import SkillError
from policysmith.skills.runs.training_run import prepare_training_run
from policysmith.skills.scheduling.skill_runs import run_data, worker_command
from policysmith.skills.scheduling.skills_file import SkillsFile
from policysmith.skills.serving.exporting import trained_plan

__all__ = ["Judgement", "evaluate_skill"]


@dataclass(frozen=True)
class Judgement:
    """Of `episodes` whole plans the share that was done, and of each skill's tasks that were begun."""

    episodes: int
    success_rate: float
    scores: dict[str, float]


def evaluate_skill(
    file: SkillsFile,
    skill: str,
    episodes: int = 100,
    *,
    command: Callable[[Path], tuple[str, ...]] = worker_command,
) -> Judgement:
    """Play `episodes` plans of a skill. Raises `SkillError` for one that is not trained, or a worker that fails."""
    completed, needed = trained_plan(file, skill)
    with tempfile.TemporaryDirectory(prefix="policysmith-") as folder:
        expert = completed[skill]["expert_idx"]
        data = run_data(file, skill)  # the worker executes the module, and compares
        run = prepare_training_run(skill, data, needed, expert, completed, root=folder, execute=False)
        words = [*command(run.run_folder), "--evaluate", str(episodes)]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        ended = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise SkillError(f"{skill!r} could not be evaluated (exit status {ended.returncode}): {last[0]}")
    return Judgement(**json.loads(ended.stdout.splitlines()[-1]))
