"""The skill library: experts that are trained in parallel, each run holding just those that it needs.

What only reads modules, or runs them in a process of their own, loads no torch: names are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ActorCriticMoE": "actor_critic_moe",
    "Expert": "expert_store",
    "Limits": "run",
    "LoadReport": "partial_load",
    "MoECheckpoint": "checkpoint",
    "Outcome": "processing",
    "PlanStep": "generate",
    "Remapping": "remap",
    "SkillModule": "module_file",
    "SkillProcess": "run",
    "TaskFunctions": "tasks",
    "TrainingRun": "training_run",
    "build_moe_checkpoint": "checkpoint",
    "build_remapping": "remap",
    "generate_module": "generate",
    "inject_remapping": "inject",
    "load_expert": "expert_store",
    "load_experts": "partial_load",
    "load_moe_checkpoint": "checkpoint",
    "load_training_run": "training_run",
    "moments_of": "partial_load",
    "parse_skill_module": "module_file",
    "prepare_training_run": "training_run",
    "process_completed_training": "processing",
    "read_skill_module": "module_file",
    "restore_moments": "partial_load",
    "task_and_reward_funcs": "tasks",
    "task_to_skill": "tasks",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
