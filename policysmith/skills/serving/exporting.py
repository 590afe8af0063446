"""A trained skill as a policy: the experts of its plan, assembled from the heads of the library.

In: a checked skills file and a skill of it. Out: an actor-critic over `{observation, task}`, which `save` stores.
"""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from policysmith.config.experiment import decode_experiment
from policysmith.config.load import Document
from policysmith.errors import SkillError, did_you_mean
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.factory import build_policy
from policysmith.registry import default_registry, part
from policysmith.skills.experts.moe_checkpoint import build_moe_checkpoint
from policysmith.skills.experts.partial_load import load_experts
from policysmith.skills.library.skill_library import SkillLibrary
from policysmith.skills.runs.remap import build_remapping
from policysmith.skills.scheduling.skills_file import SkillsFile

__all__ = ["policy_of", "trained_plan"]


def policy_of(file: SkillsFile, skill: str) -> ActorCritic:
    """The policy of a skill's plan: `task` 0, 1, … are its experts in the order of their numbers in the library.

    Only the files of these experts are read. Raises `SkillError` for a skill that is not trained.
    """
    completed, needed = trained_plan(file, skill)
    expert = completed[skill]["expert_idx"]
    remap = build_remapping(needed, expert, completed)
    environment = part("skill_environment", dict(file.environment)).build()
    observation, action = environment.spaces()
    seen = spaces.Dict({"observation": observation, "task": spaces.Discrete(len(remap.global_to_local))})
    model = part("model", {**file.model, "type": "moe", "experts": list(remap.global_to_local)})
    said = decode_experiment(Document({"name": skill, "model": model.encode()}, {}, {}, file.library), default_registry)
    policy = build_policy(model, seen, action, default_registry, seed=0, config=said.resolved())
    load_experts(policy, build_moe_checkpoint([*needed, skill], remap.global_to_local, completed))
    return policy.eval()


def trained_plan(file: SkillsFile, skill: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Where the experts of a plan lie, and the skills of it besides this one. Raises `SkillError` where one is not."""
    if skill not in file.skills:
        raise SkillError(f"there is no skill {skill!r}{did_you_mean(skill, file.skills)}: {', '.join(file.skills)}")
    library = SkillLibrary(file.library, create=False)
    needed = [name for name in dict.fromkeys(file.plans[skill]) if name != skill]
    completed = library.completed([*needed, skill])
    if missing := [name for name in (*needed, skill) if name not in completed]:
        raise SkillError(f"{missing[0]!r} is not trained yet in {file.library}: run policysmith skills train")
    return completed, needed
