"""Implicit Q-learning (arXiv 2110.06169). N transitions.

In: batches with rewards and what followed. Out: the losses of the value, of two Q networks and of the policy. The value
is the policy's own; the Q networks are models of the same kind that read the action beside the observation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from gymnasium import spaces
from torch import Tensor, nn

from policysmith.errors import ConfigError, Problem
from policysmith.graph.plan import Plan
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.factory import build_policy
from policysmith.registry import PartSpec, Slot, part, register
from policysmith.training.datasets.episodes import ACTION, OBSERVATION, REWARD, TERMINATED, Episodes
from policysmith.training.offline.batches import Batch, evaluate
from policysmith.training.offline.data import OfflineData
from policysmith.training.offline.micro_batches import MicroBatch
from policysmith.training.offline.objectives.action_metrics import action_metrics
from policysmith.training.offline.objectives.learner import Learner, Loss, Start, bind, total, weights_of
from policysmith.types import OpenShare, Positive, Share

__all__ = ["ImplicitQLearning"]


@register("iql", slot="offline_objective")
class ImplicitQLearning:
    """Implicit Q-learning (arXiv 2110.06169): values of the best actions in the data, without asking about others.

    For memoryless policies. Where an episode was cut off, the value of what came after counts on.

    Args:
        gamma: discount of later rewards.
        expectile: of Q's distribution over the data's actions, what the value learns; near 1 it is the maximum.
        inverse_temperature: how sharply better actions are preferred.
        max_weight: the most that one transition counts.
        target_rate: share of the Q networks that their targets take over at each step.
        value_coef: weight of the value's loss.
        critic: model of the Q networks, from observation and action to a value; by default the policy's own.
    """

    def __init__(
        self,
        gamma: Share = 0.99,
        expectile: OpenShare = 0.7,
        inverse_temperature: Positive = 3.0,
        max_weight: Positive = 100.0,
        target_rate: Annotated[float, Gt(0), Le(1)] = 0.005,
        value_coef: Positive = 1.0,
        critic: Annotated[PartSpec | str, Slot("model")] | None = None,
    ) -> None:
        self.gamma, self.expectile, self.inverse_temperature = gamma, expectile, inverse_temperature
        self.max_weight, self.target_rate, self.value_coef, self.critic = max_weight, target_rate, value_coef, critic

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` for a policy with memory."""
        remembering = [repr(node.name) for node in plan.nodes if node.measure.state]
        if remembering:
            message = f"iql is for memoryless policies, and {', '.join(remembering)} remembers; use bc or awr"
            raise ConfigError([Problem("training.objective", message)])

    def start(self, start: Start) -> Learner:
        """Needs rewards, and which steps ended their episode."""
        return _ImplicitQ(start, self)


class _ImplicitQ(Learner):
    def __init__(self, start: Start, options: ImplicitQLearning) -> None:
        super().__init__(start.policy, bind(start, REWARD, TERMINATED, reader="iql"))
        self.options = options
        self.critics = nn.ModuleList(_critic(start, options.critic, start.seed + i + 1) for i in range(2))
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.extra = nn.ModuleDict({"critics": self.critics, "targets": self.targets})
        self.asked = _questions(start.episodes, self.critics[0])  # type: ignore[arg-type]
        self.unknown = _unknown(start.episodes)

    def train(self, mode: bool) -> None:
        """Targets have no training mode: they only judge."""
        super().train(mode)
        self.targets.eval()

    def take_statistics(self, batch: Batch) -> None:
        """The Q networks normalise as the policy does."""
        super().take_statistics(batch)
        questions = self.asked.observe(batch.rows)
        for critic in [*self.critics, *self.targets]:
            critic.update_statistics(critic.observations.assemble(questions))

    def loss(self, batch: Batch) -> Loss:
        found, options = evaluate(self.policy, batch), self.options
        questions = self.asked.observe(batch.rows)
        with torch.no_grad():
            judged = torch.minimum(*(_ask(critic, questions) for critic in self.targets))
            following, known = self._following(batch), (~self.unknown[batch.rows]).to(judged.device)
        advantage = judged - found.value
        value = _expectile_loss(advantage, options.expectile)
        errors = [(_ask(critic, questions) - following).square() * known for critic in self.critics]
        q = torch.stack(errors).sum() / known.sum().clamp(min=1) * batch.known.get("weight", 1.0)
        weight = weights_of(advantage.detach(), 1.0 / options.inverse_temperature, options.max_weight)
        policy = -(weight * found.log_prob).mean()
        # One step for all three; the paper's algorithm takes them in turn, on the same batch.
        loss = total(policy + options.value_coef * value + q, found.aux)
        told = {"policy_loss": policy, "value_loss": value, "q_loss": q, "q": judged.mean(), "weight": weight.mean()}
        return Loss(loss, told)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the targets a little."""
        for target, critic in zip(self.targets, self.critics, strict=True):
            torch._foreach_lerp_(list(target.parameters()), list(critic.parameters()), self.options.target_rate)

    def parts(self, batch: Batch, count: int) -> list[MicroBatch]:
        """The Q networks' error is a mean over steps whose next observation is known: their share weighs it."""
        parts = super().parts(batch, count)
        known = [(~self.unknown[part.batch.rows]).sum() for part in parts]
        whole = torch.stack(known).sum().clamp(min=1)
        weights = [count / whole / part.share for part, count in zip(parts, known, strict=True)]
        if len(parts) == 1:
            return parts
        pairs = zip(parts, weights, strict=True)
        return [p._replace(batch=p.batch._replace(known={"weight": w.to(self.policy.device)})) for p, w in pairs]

    @torch.no_grad()
    def measure(self, batch: Batch) -> Mapping[str, Tensor]:
        return action_metrics(self.policy, batch)

    def _following(self, batch: Batch) -> Tensor:
        """r + γ V(s'), nothing after steps that ended their episode."""
        after = self.data.observe(batch.rows + 1)
        value = self.policy.get_value(self.policy.observations.assemble(after))
        going_on = 1.0 - self.data.ends(batch.rows)
        return self.data.column(REWARD, batch.rows) + self.options.gamma * going_on * value


def _expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """|τ - 1(u < 0)| u², the mean (eq. 5)."""
    weight = torch.where(difference > 0, expectile, 1.0 - expectile)
    return (weight * difference.square()).mean()


def _critic(start: Start, critic: Any, seed: int) -> ActorCritic:
    """A model whose value is Q(s, a): it reads the action beside the observation."""
    policy = start.policy
    spec = part("model", critic if critic is not None else policy.config["model"], start.registry)
    space = policy.observations.space
    inner = space.spaces if isinstance(space, spaces.Dict) else {OBSERVATION: space}
    if ACTION in inner:
        raise ConfigError("iql: the observation has a leaf 'action' of its own; rename it in an environment wrapper")
    asked = spaces.Dict([*inner.items(), (ACTION, policy.actions.space)])
    section = policy.config.get("observation") or {}
    made = build_policy(spec, asked, policy.actions.space, start.registry, seed=seed, observation=section)
    if made.has_memory:
        raise ConfigError([Problem("training.objective.critic", "a Q network has no memory; choose another model")])
    return made.to(policy.device)


def _questions(episodes: Episodes, critic: ActorCritic) -> OfflineData:
    """The data as a Q network reads it: the action is one of its observations."""
    columns = episodes.columns
    given = {f"{OBSERVATION}.{name}": column for name, column in columns.items() if name.split(".")[0] == ACTION}
    if OBSERVATION in columns:
        given[f"{OBSERVATION}.{OBSERVATION}"] = columns[OBSERVATION]
    return OfflineData(episodes, critic, given)


def _unknown(episodes: Episodes) -> Tensor:
    """(R,) last steps of episodes that were cut off, where the observation after them was not recorded."""
    unknown = torch.zeros(len(episodes.columns[REWARD]), dtype=torch.bool)
    if not episodes.final:
        unknown[episodes.starts + episodes.lengths - 1] = True
        unknown &= ~episodes.columns[TERMINATED].bool()
    return unknown


def _ask(critic: Any, leaves: list[Tensor]) -> Tensor:
    value: Tensor = critic.get_value(critic.observations.assemble(leaves))
    return value
