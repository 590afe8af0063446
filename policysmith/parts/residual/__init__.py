"""How a block's branch rejoins its stream: the types of the slot `residual`."""

from policysmith.parts.residual.add import Add, Gated
from policysmith.parts.residual.gtrxl import GRUGate
from policysmith.parts.residual.scaled import LayerScale, ReZero
from policysmith.parts.residual.slot import Residual

__all__ = ["Add", "GRUGate", "Gated", "LayerScale", "ReZero", "Residual"]
