"""The names of the component proposal for what is called otherwise here: aliases, nothing else.

In: nothing. Out: the very objects, so `isinstance` and pickles see no difference.
"""

from policysmith.graph.component import Component as MettaModule
from policysmith.graph.executors import ParallelExecutor as ParallelDAGExecutor
from policysmith.graph.executors import SequentialExecutor as SequentialDAGExecutor
from policysmith.parts.attention import MultiHeadLatentAttention as MultiLatentAttention
from policysmith.policy_agent import PolicyAgent as MettaAgent
from policysmith.skills.modules.inject import inject_remapping as inject_remapping_header

__all__ = [
    "MettaAgent",
    "MettaModule",
    "MultiLatentAttention",
    "ParallelDAGExecutor",
    "SequentialDAGExecutor",
    "inject_remapping_header",
]
