"""Policies on disk: one artifact, a directory that needs nothing beside itself."""

from policysmith.store.artifact import TrainingState, load, load_training, save

__all__ = ["TrainingState", "load", "load_training", "save"]
