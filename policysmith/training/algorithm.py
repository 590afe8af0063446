"""What every algorithm is told besides how it learns: its optimisers, who watches, when it is saved, who takes part."""

from __future__ import annotations

from typing import Annotated

from policysmith.errors import ConfigError, Problem
from policysmith.graph.plan import Plan
from policysmith.registry import PartSpec, Slot, part
from policysmith.training.distribution import StrategyName
from policysmith.training.nonfinite.events import NonFiniteOption, NonFiniteOptions
from policysmith.training.optim.optimizers import check_rules
from policysmith.training.optim.rules import OptimizerOption
from policysmith.types import Count, NonNegativeInt, OpenShare, Positive

__all__ = ["CHECKPOINT_MINUTES", "Algorithm"]

Loggers = list[Annotated[PartSpec | str, Slot("logger")]]
Callbacks = list[Annotated[PartSpec | str, Slot("callback")]]
CHECKPOINT_MINUTES = 1.0  # what is lost with a machine that stops: a minute's learning, for a hundredth of the time


class Algorithm:
    """The options that algorithms share; those of one alone are in its own class.

    Args:
        checkpoint_every: A checkpoint every so many steps, in place of the one by the clock.
        checkpoint_minutes: Minutes between two checkpoints; null saves none on the way.
        keep_checkpoints: How many earlier checkpoints stay beside the latest.
        accumulate: Into how many parts a batch is cut, whose gradients add up: the same update with less memory.
        ema: The decay of a moving average of the weights, which is then what is evaluated and stored; null has none.
        optimizer: The rule of all components without one of their own; Adam where none is stated.
        optimizers: Rules of single components by name; their `learning_rate` stands for the algorithm's.
        loggers: What writes reports down, where there is an output directory.
        callbacks: Functions of a report that end the training by returning true.
        strategy: How processes share the weights; `ddp` where none is stated.
        sync_batch_norm: Whether batch normalisations see the rows of all processes.
        nonfinite: How many numbers in a row may be not finite before the run stops.
    """

    def __init__(
        self,
        checkpoint_every: Count | None = None,
        checkpoint_minutes: Positive | None = CHECKPOINT_MINUTES,
        keep_checkpoints: NonNegativeInt = 0,
        accumulate: Count = 1,
        ema: OpenShare | None = None,
        optimizer: OptimizerOption | None = None,
        optimizers: dict[str, OptimizerOption] = {},  # noqa: B006 - read only
        loggers: Loggers = ["tensorboard"],  # noqa: B006 - parts get their options anew
        callbacks: Callbacks = [],  # noqa: B006
        strategy: StrategyName | None = None,
        sync_batch_norm: bool = False,
        nonfinite: NonFiniteOption = None,
    ) -> None:
        self.checkpoint_every, self.checkpoint_minutes = checkpoint_every, checkpoint_minutes
        self.keep_checkpoints, self.accumulate, self.ema = keep_checkpoints, accumulate, ema
        self.usual = None if optimizer is None else part("optimizer", optimizer)
        self.optimizers = {name: part("optimizer", option) for name, option in optimizers.items()}
        self.loggers = [part("logger", logger) for logger in loggers]
        self.callbacks = [part("callback", callback) for callback in callbacks]
        self.strategy, self.sync_batch_norm = strategy, sync_batch_norm
        self.nonfinite = nonfinite or NonFiniteOptions()

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` for a plan of which nothing learns, or without the components that `optimizers` name."""
        problems = check_rules(plan, self.optimizers)
        if not any(node.trainable for node in plan.nodes):
            problems.append(Problem("model", "nothing of it learns: every component is frozen or has no weights"))
        if problems:
            raise ConfigError(problems)
