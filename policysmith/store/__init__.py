"""Policies on disk: one artifact, a directory that needs nothing beside itself; or a store of many.

Names are imported when first used: a store is listed without torch.
"""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.store.address import is_of_store, is_stored, load
    from policysmith.store.artifact import TrainingState, load_training, save
    from policysmith.store.policy_record import PolicyRecord
    from policysmith.store.policy_store import PolicyStore

__all__ = ["PolicyRecord", "PolicyStore", "TrainingState", "is_of_store", "is_stored", "load", "load_training", "save"]

_HOMES = {
    "PolicyRecord": "policysmith.store.policy_record",
    "PolicyStore": "policysmith.store.policy_store",
    "TrainingState": "policysmith.store.artifact",
    "is_of_store": "policysmith.store.address",
    "is_stored": "policysmith.store.address",
    "load": "policysmith.store.address",
    "load_training": "policysmith.store.artifact",
    "save": "policysmith.store.artifact",
}

__getattr__ = lazy_names(__name__, _HOMES)
