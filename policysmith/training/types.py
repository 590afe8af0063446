"""Importing this registers the types of training: algorithms, objectives, optimisers, datasets, loggers, sections."""

import policysmith.training.logging.json_lines
import policysmith.training.logging.loggers
import policysmith.training.offline.offline
import policysmith.training.ppo.ppo
import policysmith.training.sections  # noqa: F401

__all__: list[str] = []
