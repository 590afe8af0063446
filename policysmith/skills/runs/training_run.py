"""A run's folder: the module with local indices, the experts it starts from, and how to get back to global ones.

In: a skill's code, its dependencies, and where completed skills lie. Out: `training_runs/skill_<E>_<name>/`, which is
there whole or not at all.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from policysmith.errors import SkillError
from policysmith.skills.experts.moe_checkpoint import MoECheckpoint, build_moe_checkpoint
from policysmith.skills.modules.generate import PlanStep, generated_module
from policysmith.skills.modules.inject import inject_remapping
from policysmith.skills.modules.module_file import SkillModule, parse_skill_module
from policysmith.skills.modules.process import Limits
from policysmith.skills.modules.tasks import task_to_skill
from policysmith.skills.runs.folder_names import expert_folder, run_folder, skill_folder
from policysmith.skills.runs.remap import Remapping, build_remapping, check_inverse, expert_index, remapping_of
from policysmith.store.files import remove_left, write_synced
from policysmith.store.json_files import json_bytes, parsed

__all__ = [
    "TrainingRun",
    "config_bytes",
    "load_training_run",
    "prepare_training_run",
    "CONFIG",
    "REMAP",
    "skill_and_folder",
]

REMAP, CONFIG = "remap.json", "config.yaml"
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times faster in C


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A prepared run; unpacks as `(run_folder, module_path)`.

    `trained` are the global experts that learn, `seed` what the run started from (None once read from disk; it lies
    in `policies_folder/0`), `about` what `remap.json` says.
    """

    run_folder: Path
    module_path: Path
    policies_folder: Path
    remap: Remapping
    trained: tuple[int, ...]
    about: Mapping[str, Any]
    seed: MoECheckpoint | None = None

    @property
    def name(self) -> str:
        """What versions and archives call the run: a later run of the same skill has another name."""
        return str(self.about.get("run", self.run_folder.name))

    @property
    def num_experts(self) -> int:
        """How many experts the run's model has."""
        return len(self.remap.global_to_local)

    def __iter__(self) -> Iterator[Path]:
        return iter((self.run_folder, self.module_path))


def prepare_training_run(
    skill_name: str,
    skill_data: Mapping[str, Any],
    dependencies: Iterable[str],
    global_expert_idx: int,
    completed_skills: Mapping[str, Mapping[str, Any]],
    *,
    root: str | Path = ".",
    train: Collection[str] = (),
    features: Collection[str] | None = None,
    limits: Limits | None = None,
    execute: bool = True,
) -> TrainingRun:
    """Make the folder of a run that trains expert `global_expert_idx`, below `root/training_runs/`.

    `skill_data` has `code` (a whole module with global indices), or `execution_plan` (a list of `{skill, count}`) and
    `codes` (of each skill); `config` goes into the run's `config.yaml`. The run holds the experts that its module uses,
    and no others. `completed_skills` are `{name: {expert_idx, path}}`. Dependencies in `train` learn too; the others
    are frozen. `features` are those that the environment offers. `execute=False` checks the remapped module by its
    syntax tree alone, and leaves running it to whoever starts the run. Raises `SkillError`; no folder is left then.
    """
    dependencies = list(dict.fromkeys(dependencies))
    allowed = build_remapping(dependencies, global_expert_idx, completed_skills)
    if strangers := [name for name in train if name not in dependencies]:
        raise SkillError(f"{strangers[0]!r} is to be trained, but is no dependency")
    written = _module(skill_name, skill_data, dependencies, global_expert_idx, completed_skills, features)
    used = set(task_to_skill(written))
    if global_expert_idx not in used:
        raise SkillError(f"the module of {skill_name!r} never uses expert {global_expert_idx}, which it is to train")
    remap = remapping_of([expert for expert in allowed.global_to_local if expert in used])
    # What else the module uses is no dependency: inject_remapping tells of it.
    module = inject_remapping(written, *remap, limits=limits, execute=execute)
    trained = {global_expert_idx, *(completed_skills[name]["expert_idx"] for name in train)} & set(
        remap.global_to_local
    )
    seed = build_moe_checkpoint(dependencies, remap.global_to_local, completed_skills, trained=trained)
    about = _about(skill_name, dependencies, global_expert_idx, remap, trained, seed, completed_skills)
    about["skill_with_consumption"] = skill_data.get("skill_with_consumption")
    config = {"skill": skill_name, "num_experts": len(remap.global_to_local), **skill_data.get("config", {})}
    folder = Path(root) / "training_runs" / run_folder(global_expert_idx, skill_name)
    _write(folder, global_expert_idx, module, about, config, seed)
    return _training_run(folder, about, seed)


def load_training_run(folder: str | Path) -> TrainingRun:
    """The run in a folder that `prepare_training_run` made. Raises `SkillError` where there is none."""
    folder = Path(folder)
    file = folder / REMAP
    if not file.is_file():
        raise SkillError(f"{folder}: is no training run: it holds no {REMAP}")
    return _training_run(folder, parsed(file, file.read_bytes()))


def config_bytes(config: Mapping[str, Any]) -> bytes:
    """What a run's `config.yaml` holds."""
    text: str = yaml.dump(dict(config), Dumper=DUMPER, sort_keys=False, allow_unicode=True)
    return text.encode()


def _training_run(folder: Path, about: Mapping[str, Any], seed: MoECheckpoint | None = None) -> TrainingRun:
    maps = ({int(k): v for k, v in about[name].items()} for name in ("global_to_local", "local_to_global"))
    remap = Remapping(*maps)
    check_inverse(*remap)
    index = expert_index(about["global_expert_idx"], f"{folder / REMAP}: global_expert_idx")
    trained = tuple(about["trained"])
    return TrainingRun(folder, folder / f"{index}.py", folder / f"{index}_policies", remap, trained, about, seed)


def _module(
    skill: str,
    data: Mapping[str, Any],
    dependencies: list[str],
    index: int,
    completed: Mapping[str, Mapping[str, Any]],
    features: Collection[str] | None,
) -> SkillModule:
    """The module with global indices: as it was given, or made from the plan."""
    if ("code" in data) == ("execution_plan" in data):
        raise SkillError(f"skill_data of {skill!r} must have either code or execution_plan, found {sorted(data)}")
    if "code" in data:
        return parse_skill_module(str(data["code"]), features, f"module of {skill!r}")
    plan = [PlanStep(**step) if isinstance(step, Mapping) else step for step in data["execution_plan"]]
    experts = {name: completed[name]["expert_idx"] for name in dependencies} | {skill: index}
    return generated_module(plan, data.get("codes", {}), experts, features)


def _about(
    skill: str,
    dependencies: list[str],
    index: int,
    remap: Remapping,
    trained: Collection[int],
    seed: MoECheckpoint,
    completed: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What `remap.json` says: enough to store every expert under its own number."""
    homes = {entry["expert_idx"]: (name, str(Path(entry["path"]).resolve())) for name, entry in completed.items()
             if entry.get("expert_idx") in remap.global_to_local and "path" in entry}  # fmt: skip
    by_global = {expert: local for expert, local in remap.global_to_local.items() if local in seed.versions}
    return {
        "run": f"{run_folder(index, skill)}-{secrets.token_hex(4)}",
        "global_to_local": {str(k): v for k, v in remap.global_to_local.items()},
        "local_to_global": {str(k): v for k, v in remap.local_to_global.items()},
        "initial_frame_counts": {str(expert): seed.frames[local] for expert, local in by_global.items()},
        "initial_versions": {str(expert): seed.versions[local] for expert, local in by_global.items()},
        "experts": {str(expert): {"skill": name, "path": path} for expert, (name, path) in sorted(homes.items())},
        "skill_name": skill,
        "global_expert_idx": index,
        "dependencies": dependencies,
        "trained": sorted(trained),
    }


def _write(
    folder: Path, index: int, module: str, about: Mapping[str, Any], config: Mapping[str, Any], seed: MoECheckpoint
) -> None:
    """Lay everything out under a hidden name, then give it its own."""
    if folder.exists():
        raise SkillError(f"{folder}: exists already: process or remove that run first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write_synced(fresh / f"{index}.py", module.encode())
        write_synced(fresh / REMAP, json_bytes(about, REMAP))
        write_synced(fresh / CONFIG, config_bytes(config))
        seed.save(fresh / f"{index}_policies" / "0")
        fresh.chmod(0o755)
        fresh.rename(folder)
    except OSError as error:
        raise SkillError(f"{folder}: cannot be made: {error}") from error
    finally:
        remove_left(fresh)


def skill_and_folder(run: TrainingRun, expert: int, root: Path) -> tuple[str, Path]:
    """The skill that an expert of the run belongs to, and the folder of its policy."""
    known = run.about["experts"].get(str(expert))
    if known is not None:
        return known["skill"], Path(known["path"])
    if expert != run.about["global_expert_idx"]:
        raise SkillError(f"{run.run_folder}: expert {expert} belongs to no skill that the run knows")
    skill = run.about["skill_name"]
    return skill, root / "skills" / skill_folder(expert, skill) / expert_folder(expert)
