"""A finished run's experts come home: local indices become global ones again, and every one is kept as a version.

In: a run's folder with the checkpoint it ended with. Out: new versions in `skills/<global>_<name>/`, and where nobody
else was faster, new heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from policysmith.errors import SkillError
from policysmith.skills.experts.checkpoint import MoECheckpoint, load_moe_checkpoint
from policysmith.skills.experts.store import head_version, save_head, save_version
from policysmith.skills.runs.training_run import TrainingRun, home_of, load_training_run
from policysmith.store.locks import Lock

__all__ = ["Outcome", "process_completed_training"]

Status = Literal["new", "continued", "branch", "frozen", "unchanged"]


@dataclass(frozen=True)
class Outcome:
    """What became of one expert.

    `new` and `continued` are the head now. A `branch` is kept as a version beside a head that another run has moved
    meanwhile; so is a `frozen` dependency whose weights changed though they should not. `unchanged` made no version.
    """

    expert: int
    skill_name: str
    status: Status
    version: str
    frames: int
    folder: Path


def process_completed_training(
    run_folder: str | Path, *, checkpoint: str | Path | None = None, root: str | Path | None = None
) -> list[Outcome]:
    """Bring the experts of a run home, in the order of their global indices.

    `checkpoint` is the folder it ended with, by default the one with the highest number in its policies folder; `root`
    is where `skills/` lies, by default that of the run. Doing it again changes nothing. Raises `SkillError`, and then
    no head was moved.
    """
    run = load_training_run(run_folder)
    final = load_moe_checkpoint(checkpoint if checkpoint is not None else _last(run))
    if final.experts != sorted(run.remap.local_to_global):
        held = ", ".join(map(str, final.experts))
        raise SkillError(f"{run.run_folder}: its checkpoint holds experts {held}, and its module {run.num_experts}")
    home = Path(root) if root is not None else run.run_folder.resolve().parents[1]
    (home / "skills").mkdir(parents=True, exist_ok=True)
    experts = sorted(run.remap.global_to_local)
    places = {expert: home_of(run, expert, home) for expert in experts}
    with Lock(home / "skills" / ".library").alone():
        kept = [_keep(run, final, expert, *places[expert]) for expert in experts]
        for outcome in kept:
            if outcome.status in ("new", "continued"):
                save_head(outcome.folder, outcome.version)
    return kept


def _keep(run: TrainingRun, final: MoECheckpoint, expert: int, skill: str, folder: Path) -> Outcome:
    """Store one expert as a version, if it is one."""
    local = run.remap.global_to_local[expert]
    began = run.about["initial_versions"].get(str(expert))
    found = final.expert(local, expert, skill, [began] if began else [])
    version, head = found.version, head_version(folder)
    if version in (began, head):
        return Outcome(expert, skill, "unchanged", version, found.frames, folder)
    save_version(folder, found)
    status: Status
    if expert not in run.trained:
        status = "frozen"
    elif head is None:
        status = "new"
    else:
        status = "continued" if head == began else "branch"
    return Outcome(expert, skill, status, version, found.frames, folder)


def _last(run: TrainingRun) -> Path:
    numbered = [path for path in run.policies_folder.glob("*") if path.name.isdecimal() and path.name != "0"]
    if not numbered:
        raise SkillError(f"{run.policies_folder}: holds no checkpoint but the one the run started from")
    return max(numbered, key=lambda path: int(path.name))
