"""The skill library: experts that are trained in parallel, each run holding just those that it needs.

Names are imported when first used: what only reads a library or modules, or runs modules in a process of their own,
loads no torch.
"""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.skills.experts.actor_critic_moe import ActorCriticMoE
    from policysmith.skills.experts.expert_versions import Expert, load_expert
    from policysmith.skills.experts.moe_checkpoint import MoECheckpoint, build_moe_checkpoint, load_moe_checkpoint
    from policysmith.skills.experts.partial_load import LoadReport, load_experts, moments_of, restore_moments
    from policysmith.skills.library.skill_library import SkillLibrary
    from policysmith.skills.modules.generate import PlanStep, generate_module
    from policysmith.skills.modules.inject import inject_remapping
    from policysmith.skills.modules.module_file import SkillModule, parse_skill_module, read_skill_module
    from policysmith.skills.modules.process import Limits, SkillProcess
    from policysmith.skills.modules.tasks import TaskFunctions, task_and_reward_funcs, task_to_skill
    from policysmith.skills.runs.completed_training import Outcome, process_completed_training
    from policysmith.skills.runs.remap import Remapping, build_remapping
    from policysmith.skills.runs.training_run import TrainingRun, load_training_run, prepare_training_run
    from policysmith.skills.scheduling.skills_file import SkillsFile, read_skills_file
    from policysmith.skills.scheduling.skills_session import train_skills

_HOMES = {
    "ActorCriticMoE": "policysmith.skills.experts.actor_critic_moe",
    "Expert": "policysmith.skills.experts.expert_versions",
    "Limits": "policysmith.skills.modules.process",
    "LoadReport": "policysmith.skills.experts.partial_load",
    "MoECheckpoint": "policysmith.skills.experts.moe_checkpoint",
    "Outcome": "policysmith.skills.runs.completed_training",
    "PlanStep": "policysmith.skills.modules.generate",
    "Remapping": "policysmith.skills.runs.remap",
    "SkillLibrary": "policysmith.skills.library.skill_library",
    "SkillModule": "policysmith.skills.modules.module_file",
    "SkillProcess": "policysmith.skills.modules.process",
    "SkillsFile": "policysmith.skills.scheduling.skills_file",
    "TaskFunctions": "policysmith.skills.modules.tasks",
    "TrainingRun": "policysmith.skills.runs.training_run",
    "build_moe_checkpoint": "policysmith.skills.experts.moe_checkpoint",
    "build_remapping": "policysmith.skills.runs.remap",
    "generate_module": "policysmith.skills.modules.generate",
    "inject_remapping": "policysmith.skills.modules.inject",
    "load_expert": "policysmith.skills.experts.expert_versions",
    "load_experts": "policysmith.skills.experts.partial_load",
    "load_moe_checkpoint": "policysmith.skills.experts.moe_checkpoint",
    "load_training_run": "policysmith.skills.runs.training_run",
    "moments_of": "policysmith.skills.experts.partial_load",
    "parse_skill_module": "policysmith.skills.modules.module_file",
    "prepare_training_run": "policysmith.skills.runs.training_run",
    "process_completed_training": "policysmith.skills.runs.completed_training",
    "read_skill_module": "policysmith.skills.modules.module_file",
    "read_skills_file": "policysmith.skills.scheduling.skills_file",
    "restore_moments": "policysmith.skills.experts.partial_load",
    "task_and_reward_funcs": "policysmith.skills.modules.tasks",
    "task_to_skill": "policysmith.skills.modules.tasks",
    "train_skills": "policysmith.skills.scheduling.skills_session",
}

__all__ = [
    "ActorCriticMoE",
    "Expert",
    "Limits",
    "LoadReport",
    "MoECheckpoint",
    "Outcome",
    "PlanStep",
    "Remapping",
    "SkillLibrary",
    "SkillModule",
    "SkillProcess",
    "SkillsFile",
    "TaskFunctions",
    "TrainingRun",
    "build_moe_checkpoint",
    "build_remapping",
    "generate_module",
    "inject_remapping",
    "load_expert",
    "load_experts",
    "load_moe_checkpoint",
    "load_training_run",
    "moments_of",
    "parse_skill_module",
    "prepare_training_run",
    "process_completed_training",
    "read_skill_module",
    "read_skills_file",
    "restore_moments",
    "task_and_reward_funcs",
    "task_to_skill",
    "train_skills",
]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
