"""Importing this registers the types of training: algorithms, objectives, optimisers, datasets, loggers, schedules."""

import policysmith.training.json_lines
import policysmith.training.logging
import policysmith.training.offline
import policysmith.training.online  # noqa: F401

__all__: list[str] = []
