"""The names of the component proposal for what is called otherwise here: aliases, nothing else."""

from policysmith.dialects.metta.legacy import LegacyComponent
from policysmith.dialects.metta.policy_agent import PolicyAgent
from policysmith.dialects.metta.policy_agent import PolicyAgent as MettaAgent
from policysmith.graph.component import Component as MettaModule
from policysmith.graph.executors import ParallelExecutor as ParallelDAGExecutor
from policysmith.graph.executors import SequentialExecutor as SequentialDAGExecutor

__all__ = [
    "LegacyComponent",
    "MettaAgent",
    "MettaModule",
    "ParallelDAGExecutor",
    "PolicyAgent",
    "SequentialDAGExecutor",
]
