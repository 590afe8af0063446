"""The names of the five proposals for what is called otherwise here: aliases, nothing else.

In: nothing. Out: the very objects, so `isinstance` and pickles see no difference.
"""

from typing import TYPE_CHECKING

from policysmith.lazy_names import lazy_names

if TYPE_CHECKING:
    from policysmith.dialects.flowrl.names import inject_remapping_header
    from policysmith.dialects.metta.names import MettaAgent, MettaModule, ParallelDAGExecutor, SequentialDAGExecutor
    from policysmith.dialects.trading_bot.names import MultiLatentAttention

__all__ = [
    "MettaAgent",
    "MettaModule",
    "MultiLatentAttention",
    "ParallelDAGExecutor",
    "SequentialDAGExecutor",
    "inject_remapping_header",
]

_METTA = "policysmith.dialects.metta.names"

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("MettaAgent", "MettaModule", "ParallelDAGExecutor", "SequentialDAGExecutor"), _METTA),
        "MultiLatentAttention": "policysmith.dialects.trading_bot.names",
        "inject_remapping_header": "policysmith.dialects.flowrl.names",
    },
)
