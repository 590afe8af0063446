"""Environments that tell skills' functions what they ask for: features by name, beside what the network sees."""

import policysmith.skills.environments.craftax
import policysmith.skills.environments.minigrid  # noqa: F401 - importing registers the types
from policysmith.skills.environments.skill_environment import SkillEnvironment, SkillStep, SkillVectorEnv

__all__ = ["SkillEnvironment", "SkillVectorEnv", "SkillStep"]
