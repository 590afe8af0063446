"""One training run in several processes: who takes part, what they agree on, and how weights and gradients are shared.

In: torchrun's environment. Out: a `World` that every process joins, and the strategy that training steps by.
"""

from policysmith.training.distribution.strategy import ALONE, Strategy, StrategyName
from policysmith.training.distribution.world import World, joined

__all__ = ["ALONE", "Strategy", "StrategyName", "World", "joined"]
