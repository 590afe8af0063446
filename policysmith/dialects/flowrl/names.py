"""The names of the skills proposal for what is called otherwise here: aliases, nothing else."""

from policysmith.skills.experts.actor_critic_moe import ActorCriticMoE
from policysmith.skills.modules.inject import inject_remapping as inject_remapping_header

__all__ = ["ActorCriticMoE", "inject_remapping_header"]
