"""Learning from recorded episodes: updates of a policy on batches of a dataset.

In: a learner and samplers. Out: a trained policy; now and then a report goes to whoever watches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from policysmith.config.options import options_of
from policysmith.errors import ConfigError, DatasetError, Problem
from policysmith.graph.plan import Plan
from policysmith.registry import part, register
from policysmith.training.algorithm import Algorithm
from policysmith.training.datasets.episodes import DatasetOption, Episodes
from policysmith.training.distribution import ALONE, Strategy, World
from policysmith.training.distribution.batch_norms import average_statistics, synchronised
from policysmith.training.logging.report import Report
from policysmith.training.nonfinite.events import UPDATES
from policysmith.training.nonfinite.rollback import Rollback
from policysmith.training.offline.batches import Batch, Sampler, split_episodes, units_of
from policysmith.training.offline.objectives import Learner, Loss, Objective, ObjectiveOption
from policysmith.training.offline.shared_sampler import SharedSampler
from policysmith.training.optim.optimizers import Optimizers, optimize
from policysmith.training.optim.schedules import Schedule, schedule
from policysmith.training.process.generators import own_generators
from policysmith.types import Count, Dropout, NonNegativeInt, Positive
from policysmith.wrappers import attach_all, metrics_of

__all__ = ["EPOCHS", "Offline", "RunningMeans", "Samplers", "Watcher"]

EPOCHS = 10
DTYPES = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)}
CHECK_EVERY = 100  # updates after which all that was learned is looked at, and kept to go back to


class Watcher(Protocol):
    """Whoever sees updates: both are asked whether to stop."""

    def report(self, report: Report) -> bool:
        """After an epoch, or every `report_every` updates, and at the end."""
        ...

    def update(self, update: int) -> bool:
        """After every update; `update` counts those done."""
        ...


class Samplers:
    """What is learnt from, and what is held out (None where nothing is)."""

    def __init__(self, training: Sampler, validation: Sampler | None) -> None:
        self.training, self.validation = training, validation


@register("offline", slot="algorithm", offline=True)
class Offline(Algorithm):
    """Learning from a dataset alone, with held-out episodes that tell how well it goes.

    A policy with memory learns over windows of `sequence_length` steps (null: whole episodes), each from the initial
    state; `burn_in` steps before each are run to make the state, and do not count.

    Args:
        dataset: the recorded episodes.
        objective: what is minimised.
        epochs: passes over the data; 10 where neither this nor `updates` is given.
        updates: steps of the optimiser, in place of epochs.
        batch_size: transitions of an update, or windows of a policy with memory.
        learning_rate: step size, a number or a schedule of progress.
        max_grad_norm: to what the gradient's norm is clipped; null leaves it.
        validation_share: share of the episodes that is held out; 0 is none.
        report_every: updates between two reports and validations; null is an epoch.
        checkpoint_every: updates between two saves; null saves by the clock.
        sequence_length: steps of a window.
        burn_in: steps before a window.
        ema: decay of a moving average of the policy's weights, which is what is validated, evaluated and stored.
        strategy: how the processes of torchrun share the work: ddp, where none is stated, or fsdp; each takes
            `batch_size` of every batch.
        nonfinite: after `max` updates in a row whose loss or gradients are not finite, and which are left out, training
            goes back to its last finite state and raises `NonFiniteError`.
    """

    @options_of(Algorithm, loggers=["tensorboard", "json_lines"])
    def __init__(
        self,
        dataset: DatasetOption | None = None,
        objective: ObjectiveOption = "bc",
        epochs: Count | None = None,
        updates: Count | None = None,
        batch_size: Count = 256,
        learning_rate: Schedule = 1e-3,
        max_grad_norm: Positive | None = 1.0,
        validation_share: Dropout = 0.1,
        report_every: Count | None = None,
        sequence_length: Count | None = None,
        burn_in: NonNegativeInt = 0,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if epochs is not None and updates is not None:
            message = f"says how long to train, and so does epochs={epochs}: leave one out"
            raise ConfigError([Problem("training.updates", message)])
        self.dataset, self.objective_part = dataset, part("offline_objective", objective)
        self.epochs, self.updates, self.batch_size = epochs, updates, batch_size
        self.max_grad_norm, self.validation_share = max_grad_norm, validation_share
        self.report_every = report_every
        self.sequence_length, self.burn_in = sequence_length, burn_in
        self._learning_rate = schedule(learning_rate)

    @property
    def objective(self) -> Objective:
        """The objective, made anew."""
        made: Objective = self.objective_part.build()
        return made

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` for the plan of a policy that can't learn by the objective, or lacks what is named."""
        self.objective.check(plan)
        super().check(plan)

    def samplers(self, learner: Learner, episodes: Episodes, seed: int, world: World | None = None) -> Samplers:
        """Batches of the episodes that teach, this process's part of each, and of those held out."""
        if self.validation_share and len(episodes) < 2:
            raise DatasetError(
                f"{episodes.place}: has one episode, and validation_share={self.validation_share:g} would hold one "
                "out; set validation_share: 0"
            )
        parts = split_episodes(len(episodes), self.validation_share, seed)
        units = [units_of(learner.policy, episodes, part, self.sequence_length, self.burn_in) for part in parts]
        held_out = Sampler(learner.data, units[1], self.batch_size, seed) if len(units[1]) else None
        if world is None or world.size == 1:
            return Samplers(Sampler(learner.data, units[0], self.batch_size, seed), held_out)
        return Samplers(SharedSampler(learner.data, units[0], self.batch_size, seed, world), held_out)

    def total(self, samplers: Samplers) -> int:
        """How many updates there are in all."""
        training = samplers.training
        return self.updates or (self.epochs or EPOCHS) * training.per_epoch - training.ahead

    def optimizer(self, learner: Learner) -> Optimizers:
        """The optimiser that `learn` steps; what an objective trains besides the policy goes by the usual rule."""
        return optimize(learner.policy.components, self.usual, self.optimizers, extra=learner.parameters())

    def learn(
        self,
        learner: Learner,
        samplers: Samplers,
        optimizer: Optimizers,
        watcher: Watcher,
        update: int = 0,
        strategy: Strategy = ALONE,
        judging: Callable[[], AbstractContextManager[None]] = nullcontext,
        means: RunningMeans | None = None,
    ) -> None:
        """Train until all updates are done, from the one that comes next, or until the watcher says stop.

        Held-out transitions are measured within `judging()`, which may put other weights in place. `means` are those
        since the last report, of a run that goes on.
        """
        total, every = self.total(samplers), self.report_every or samplers.training.per_epoch
        means = RunningMeans() if means is None else means
        components, world = learner.policy.components, strategy.world
        learner.train(True)
        finite = Rollback([learner.policy, learner.extra], optimizer, self.nonfinite.max, world)
        with attach_all(components.values(), optimizer), self._norms(learner, world), finite.kept_at(update):
            while update < total:
                optimizer.advance(update / total, self._learning_rate(update / total))
                found: list[tuple[Loss, float]] = []
                batch, weight = samplers.training.batch(update), samplers.training.weight(update)
                optimizer.step(self._losses(learner, batch, weight, strategy, found), self.max_grad_norm)
                learner.after_step()
                means.add(_together(found))
                update += 1
                stop = False
                checked = update % CHECK_EVERY == 0 or update % every == 0 or update == total
                if checked:
                    means.left_out += finite.settle().steps
                if update % every == 0 or update == total:
                    average_statistics(learner.policy, world)
                    scalars = {f"training/{name}": mean for name, mean in means.means(world).items()}
                    with judging(), strategy.whole():
                        scalars |= validate(learner, samplers.validation) | metrics_of(components)
                    scalars |= {UPDATES: float(means.left_out)} if means.left_out else {}
                    means.left_out = 0
                    scalars["charts/learning_rate"] = optimizer.learning_rate
                    scalars["charts/epoch"] = samplers.training.epochs(update)
                    stop = watcher.report(Report(update, -(-update // every), [], scalars))
                if checked:  # what whoever is told has just copied is taken over
                    finite.keep(update)
                if watcher.update(update) or stop:
                    break
        learner.train(False)

    def _losses(
        self, learner: Learner, batch: Batch, weight: float, strategy: Strategy, found: list[tuple[Loss, float]]
    ) -> Iterator[Tensor]:
        """What to minimise of a batch, of which this process has `weight`, part by part; losses are left in `found`."""
        parts = strategy.evened(learner.parts(batch, self.accumulate), self.accumulate)
        for index, (piece, share) in enumerate(parts):

            def make(piece: Batch = piece, share: float = share) -> Tensor:
                found.append((learner.loss(piece), share))
                return found[-1][0].value

            yield strategy.loss(make, weight * share, final=index == len(parts) - 1)

    def _norms(self, learner: Learner, world: World) -> AbstractContextManager[None]:
        return synchronised(learner.policy, world) if self.sync_batch_norm else nullcontext()


def _together(found: list[tuple[Loss, float]]) -> dict[str, Tensor]:
    """The scalars of a batch, of those of its parts."""
    if len(found) == 1:
        return {"loss": found[0][0].value, **found[0][0].scalars}
    told = [({"loss": loss.value, **loss.scalars}, share) for loss, share in found]
    return {name: torch.stack([part[name].detach() * share for part, share in told]).sum(0) for name in told[0][0]}


class RunningMeans:
    """Means of scalars over updates since the last report; they stay on their device until they are asked for.

    `left_out` counts updates whose step was skipped. A run that is resumed between two reports goes on with `state()`.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count: float | Tensor = 0.0
        self.left_out = 0

    def add(self, scalars: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add figures in, but those of a loss that is not finite: its update was left out, too."""
        finite = torch.isfinite(scalars["loss"].detach())
        on_cpu = finite.device.type == "cpu"
        if on_cpu and not finite:
            for name, value in scalars.items():  # all processes know the same names, whatever they have met
                self._sums.setdefault(name, torch.zeros_like(value.detach()))
            return
        # On an accelerator nothing is waited for: such figures count as zeros, in the sums and in their count.
        self._count = self._count + (weight if on_cpu else finite * weight)
        for name, value in scalars.items():
            value = value.detach() if on_cpu else torch.where(finite, value.detach(), 0.0)
            value = value if weight == 1.0 else value * weight
            self._sums[name] = self._sums[name].add_(value) if name in self._sums else value.clone()

    def means(self, world: World | None = None) -> dict[str, float]:
        """The means since the last call, over all processes; none where no loss was finite."""
        count = float(self._count)
        found = {name: value.item() / count if count else math.nan for name, value in self._sums.items()}
        if world is not None:
            found = world.means(found)
        self._sums, self._count = {}, 0.0
        return found if math.isfinite(found["loss"]) else {}

    def state(self) -> dict[str, Any]:
        """Sums with their dtypes, and both counts, as plain data: a stored tensor may not be NaN, a sum may."""
        sums = {name: [value.item(), str(value.dtype)] for name, value in self._sums.items()}
        return {"sums": sums, "count": float(self._count), "left_out": self.left_out}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take up what `state` gave."""
        sums = state["sums"].items()
        self._sums = {name: torch.tensor(value, dtype=DTYPES[dtype], device=device) for name, (value, dtype) in sums}
        count = float(state["count"])
        self._count = count if device.type == "cpu" else torch.tensor(count, device=device)
        self.left_out = int(state["left_out"])


def validate(learner: Learner, sampler: Sampler | None) -> dict[str, float]:
    """Means over the held-out transitions, by tag; what is drawn is the same each time, from a generator of its own."""
    if sampler is None:
        return {}
    sums = RunningMeans()
    learner.train(False)
    try:
        with torch.no_grad(), own_generators(0, learner.policy.device):
            for batch in sampler:
                loss = learner.loss(batch)
                sums.add({"loss": loss.value, **loss.scalars, **learner.measure(batch)}, float(len(batch.rows)))
    finally:
        learner.train(True)
    return {f"validation/{name}": value for name, value in sums.means().items()}
