"""Components that remember: one step in and out while acting, whole sequences with resets while learning."""

from policysmith.parts.memory.gru import GRU
from policysmith.parts.memory.lstm import LSTM
from policysmith.parts.memory.mingru import MinGRU

__all__ = ["GRU", "LSTM", "MinGRU"]
