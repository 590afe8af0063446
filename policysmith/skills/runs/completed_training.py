"""The experts of a finished run are stored in the library: under their global indices again, each as a new version.

In: a run's folder with the checkpoint it ended with. Out: new versions in `skills/<global>_<name>/`, and new heads
where the head policy says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from policysmith.errors import SkillError
from policysmith.skills.experts.expert_versions import (
    Expert,
    head_version,
    read_metadata,
    save_version,
    version_folder,
    versions_of,
)
from policysmith.skills.experts.moe_checkpoint import MoECheckpoint, load_moe_checkpoint
from policysmith.skills.library.head_history import free_branch, move_head, name_branch, now, read_heads
from policysmith.skills.library.head_policies import Choice, Contender, HeadPolicy, find_head_policy
from policysmith.skills.library.merging import ancestors, average_of
from policysmith.skills.runs.training_run import TrainingRun, load_training_run, skill_and_folder
from policysmith.store.json_files import parsed
from policysmith.store.locks import Lock

__all__ = [
    "FinishedRun",
    "Outcome",
    "store_experts",
    "library_lock",
    "finished_run",
    "process_completed_training",
    "RESULT",
]

RESULT = "result.json"
Status = Literal["new", "continued", "averaged", "branch", "frozen", "unchanged"]


@dataclass(frozen=True)
class Outcome:
    """What became of one expert.

    `new` and `continued` are the head now; of an `averaged` one its mean with the head before is. A `branch` is kept as
    a version beside the head, where the head policy preferred that; so is a `frozen` dependency whose weights changed
    though they should not. `unchanged` made no version. `head` is the head now, `branch` the name of a named one.
    """

    expert: int
    skill_name: str
    status: Status
    version: str
    frames: int
    folder: Path
    head: str | None = None
    branch: str | None = None


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run, the checkpoint it ended with, and its evaluation: skill → 0 … 1."""

    run: TrainingRun
    final: MoECheckpoint
    scores: Mapping[str, float]


def process_completed_training(
    run_folder: str | Path,
    *,
    checkpoint: str | Path | None = None,
    root: str | Path | None = None,
    scores: Mapping[str, float] | None = None,
    head: str | HeadPolicy = "best-evaluation",
) -> list[Outcome]:
    """Store the experts of a finished run in the library, in the order of their global indices.

    `checkpoint` is the folder it ended with, by default the one with the highest number in its policies folder; `root`
    is where `skills/` lies, by default that of the run; `scores` are by skill, by default those in `result.json`;
    `head` says which version becomes the head. Doing it again changes nothing. Raises `SkillError`, and then no head
    was moved.
    """
    policy, run = find_head_policy(head), load_training_run(run_folder)
    finished = finished_run(run, checkpoint, scores)
    home = Path(root) if root is not None else run.run_folder.resolve().parents[1]
    places = {expert: skill_and_folder(run, expert, home) for expert in run.remap.global_to_local}
    with library_lock(home).alone():
        return store_experts(finished, places, policy)


def library_lock(home: Path) -> Lock:
    """Who changes experts below `home/skills/` holds this alone."""
    (home / "skills").mkdir(parents=True, exist_ok=True)
    return Lock(home / "skills" / ".library")


def finished_run(
    run: TrainingRun, checkpoint: str | Path | None = None, scores: Mapping[str, float] | None = None
) -> FinishedRun:
    """A run with what it ended with. Raises `SkillError` where it holds other experts than its module."""
    final = load_moe_checkpoint(checkpoint if checkpoint is not None else _last(run))
    if final.experts != sorted(run.remap.local_to_global):
        held = ", ".join(map(str, final.experts))
        raise SkillError(f"{run.run_folder}: its checkpoint holds experts {held}, and its module {run.num_experts}")
    return FinishedRun(run, final, _scores(run.run_folder / RESULT) if scores is None else dict(scores))


def store_experts(finished: FinishedRun, places: Mapping[int, tuple[str, Path]], policy: HeadPolicy) -> list[Outcome]:
    """Keep every expert as a version, then move heads. `places` are skill and folder of each; the lock is held."""
    kept: list[tuple[Expert, Outcome, bool]] = []
    for expert, (skill, folder) in sorted(places.items()):
        found, head = _expert(finished, expert, skill), head_version(folder)
        before = versions_of(folder)
        version = save_version(folder, found, unless=(_began(finished.run, expert), head))
        outcome = Outcome(expert, skill, "unchanged", version, found.frames, folder, head)
        kept.append((found, outcome, version in before))
    return [_placed(finished.run, outcome, found, policy, known) for found, outcome, known in kept]


def _expert(finished: FinishedRun, expert: int, skill: str) -> Expert:
    """One of the run's experts with all that is known of it."""
    run, began = finished.run, _began(finished.run, expert)
    found = finished.final.expert(run.remap.global_to_local[expert], expert, skill, [began] if began else [])
    others = {name: version for name, version in _versions_by_skill(run).items() if name != skill}
    about: dict[str, Any] = {
        "status": "trained" if expert in run.trained else "frozen",
        "run": run.name,
        "created": now(),
        "scores": dict(finished.scores),
        "trained_with": others,
    }
    if expert == run.about["global_expert_idx"]:
        about["dependencies"] = list(run.about["dependencies"])
    return replace(found, about=about)


def _placed(run: TrainingRun, outcome: Outcome, found: Expert, policy: HeadPolicy, known: bool) -> Outcome:
    """Decide what a version is beside the head. `known`: it was there before, so this may have been decided already."""
    version, head, folder = outcome.version, outcome.head, outcome.folder
    if version in (_began(run, found.index), head) or (known and _is_behind(folder, version)):
        return outcome
    if found.index not in run.trained:
        return replace(outcome, status="frozen")
    if head is None:
        move_head(folder, version, "the first", run.name)
        return replace(outcome, status="new", head=version)
    choice = policy(_contender(folder, head), _candidate(found))
    return _settle(run, folder, outcome, choice, getattr(policy, "__name__", "policy").replace("_", "-"))


def _settle(run: TrainingRun, folder: Path, outcome: Outcome, choice: Choice, reason: str) -> Outcome:
    """Do what the head policy chose."""
    if choice == "candidate":
        move_head(folder, outcome.version, reason, run.name)
        return replace(outcome, status="continued", head=outcome.version)
    if choice == "average" and outcome.head is not None:
        mean = save_version(folder, average_of(folder, outcome.head, outcome.version, run.name))
        move_head(folder, mean, reason, run.name)
        return replace(outcome, status="averaged", head=mean)
    if choice == "branch":
        name = free_branch(read_heads(folder), run.name, outcome.version)
        name_branch(folder, name, outcome.version)
        return replace(outcome, status="branch", branch=name)
    if choice != "head":
        raise SkillError(f"the head policy {reason!r} gave {choice!r}; expected candidate, head, branch or average")
    return replace(outcome, status="branch")


def _is_behind(folder: Path, version: str) -> bool:
    """Whether the head comes from this version, or has been it."""
    heads = read_heads(folder)
    been = any(move.version == version for move in heads.history)
    return been or (heads.head is not None and version in ancestors(folder, heads.head))


def _contender(folder: Path, version: str) -> Contender:
    said = read_metadata(version_folder(folder, version))
    score = said.get("about", {}).get("scores", {}).get(said["skill_name"])
    return Contender(version, said["frames"], score, tuple(said["parents"]))


def _candidate(found: Expert) -> Contender:
    score = found.about["scores"].get(found.skill_name)
    return Contender(found.version, found.frames, score, found.parents)


def _began(run: TrainingRun, expert: int) -> str | None:
    """The version that the run started this expert from."""
    began: str | None = run.about["initial_versions"].get(str(expert))
    return began


def _versions_by_skill(run: TrainingRun) -> dict[str, str]:
    """Which versions of its dependencies the run started from."""
    experts = run.about["experts"]
    return {experts[index]["skill"]: v for index, v in run.about["initial_versions"].items() if index in experts}


def _scores(file: Path) -> dict[str, float]:
    """What the run's worker says of each skill; nothing where it said nothing."""
    if not file.is_file():
        return {}
    said = parsed(file, file.read_bytes()).get("scores") or {}
    for skill, score in said.items():
        if not isinstance(score, int | float) or isinstance(score, bool) or not math.isfinite(score):
            raise SkillError(f"{file}: scores.{skill} is {score!r}, not a finite number")
    return {skill: float(score) for skill, score in said.items()}


def _last(run: TrainingRun) -> Path:
    numbered = [path for path in run.policies_folder.glob("*") if path.name.isdecimal() and path.name != "0"]
    if not numbered:
        raise SkillError(f"{run.policies_folder}: holds no checkpoint but the one the run started from")
    return max(numbered, key=lambda path: int(path.name))
