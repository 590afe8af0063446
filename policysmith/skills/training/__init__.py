"""Training one skill: a worker process that steps the environment, judges by the skill's code, and learns by PPO."""

import policysmith.parts
import policysmith.skills.environments
import policysmith.training.logging.json_lines  # noqa: F401 - importing registers the types
from policysmith.skills.training.skill_ppo import SkillPPO

__all__ = ["SkillPPO"]
