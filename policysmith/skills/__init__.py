"""The skill library: experts that are trained in parallel, each run holding just those that it needs.

What only reads modules, or runs them in a process of their own, loads no torch: names are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ActorCriticMoE": "experts.actor_critic_moe",
    "Expert": "experts.store",
    "Limits": "modules.process",
    "LoadReport": "experts.partial_load",
    "MoECheckpoint": "experts.checkpoint",
    "Outcome": "runs.processing",
    "PlanStep": "modules.generate",
    "Remapping": "runs.remap",
    "SkillLibrary": "library.library",
    "SkillModule": "modules.module_file",
    "SkillProcess": "modules.process",
    "SkillsFile": "scheduling.skills_file",
    "TaskFunctions": "modules.tasks",
    "TrainingRun": "runs.training_run",
    "build_moe_checkpoint": "experts.checkpoint",
    "build_remapping": "runs.remap",
    "generate_module": "modules.generate",
    "inject_remapping": "modules.inject",
    "load_expert": "experts.store",
    "load_experts": "experts.partial_load",
    "load_moe_checkpoint": "experts.checkpoint",
    "load_training_run": "runs.training_run",
    "moments_of": "experts.partial_load",
    "parse_skill_module": "modules.module_file",
    "prepare_training_run": "runs.training_run",
    "process_completed_training": "runs.processing",
    "read_skill_module": "modules.module_file",
    "read_skills_file": "scheduling.skills_file",
    "restore_moments": "experts.partial_load",
    "task_and_reward_funcs": "modules.tasks",
    "task_to_skill": "modules.tasks",
    "train_skills": "scheduling.session",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
