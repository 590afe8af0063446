"""Policies on disk: one artifact, a directory that needs nothing beside itself; or a store of many."""

from policysmith.store.artifact import TrainingState, load_training, save
from policysmith.store.policy_store import PolicyStore
from policysmith.store.record import PolicyRecord
from policysmith.store.source import is_of_store, is_stored, load

__all__ = ["PolicyRecord", "PolicyStore", "TrainingState", "is_of_store", "is_stored", "load", "load_training", "save"]
