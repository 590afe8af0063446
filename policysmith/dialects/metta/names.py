"""The names of the component proposal for what is called otherwise here: aliases, nothing else."""

from policysmith.compile.executors import ParallelExecutor as ParallelDAGExecutor
from policysmith.compile.executors import SequentialExecutor as SequentialDAGExecutor
from policysmith.dialects.metta.legacy import LegacyComponent
from policysmith.dialects.metta.policy_agent import PolicyAgent
from policysmith.dialects.metta.policy_agent import PolicyAgent as MettaAgent
from policysmith.graph.component import Component as MettaModule

__all__ = [
    "LegacyComponent",
    "MettaAgent",
    "MettaModule",
    "ParallelDAGExecutor",
    "PolicyAgent",
    "SequentialDAGExecutor",
]
