"""Importing this registers the types of training: algorithms, objectives, optimisers, datasets, loggers, schedules."""

import policysmith.training.logging.json_lines
import policysmith.training.logging.loggers
import policysmith.training.offline.offline
import policysmith.training.ppo.ppo  # noqa: F401

__all__: list[str] = []
