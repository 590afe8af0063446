"""Importing this registers the types that a skills file may name: environments, launchers and the algorithm."""

import policysmith.policy.models
import policysmith.skills.environments
import policysmith.skills.scheduling.local
import policysmith.skills.scheduling.ray_launcher
import policysmith.skills.training  # noqa: F401

__all__: list[str] = []
