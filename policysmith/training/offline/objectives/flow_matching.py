"""Flow matching (arXiv 2210.02747) of action chunks. N transitions, H steps, D numbers an action.

In: batches of observations and the actions that followed. Out: the squared error of the velocity that carries noise to
them in a straight line.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from policysmith.errors import ConfigError, Problem
from policysmith.graph.module_view import bare
from policysmith.graph.plan import Plan
from policysmith.policy.flow_head import FlowHead
from policysmith.registry import register
from policysmith.training.offline.batches import Batch
from policysmith.training.offline.micro_batches import MicroBatch
from policysmith.training.offline.objectives.action_metrics import action_metrics
from policysmith.training.offline.objectives.learner import Learner, Loss, Start, bind

__all__ = ["FlowMatching"]

SMALLEST_SPREAD = 1e-3  # of an action that never changes


@register("flow_matching", slot="offline_objective")
class FlowMatching:
    """Conditional flow matching along straight lines (arXiv 2210.02747, with σ_min = 0) of continuous action chunks.

    For a memoryless policy whose head is of type `flow_head`; the chunk is its `horizon`. Actions are normalised by
    their mean and deviation in the data, which the head keeps. After an episode's end its last action is repeated, and
    does not count. The value learns nothing.
    """

    def check(self, plan: Plan) -> None:
        """Raise `ConfigError` for a policy with another head, or with memory."""
        head = next(node for node in plan.nodes if node.role == "policy")
        problems = []
        if head.part.type != "flow_head":
            problems.append(f"flow_matching teaches a head of type flow_head, and {head.name!r} is {head.part.type!r}")
        remembering = [repr(node.name) for node in plan.nodes if node.measure.state]
        if remembering:
            problems.append(f"flow_matching is for memoryless policies, and {', '.join(remembering)} remembers")
        if problems:
            raise ConfigError([Problem("training.objective", problem) for problem in problems])

    def start(self, start: Start) -> Learner:
        """Needs observations and actions alone."""
        self.check(start.policy.plan)
        return _Matching(start)


class _Matching(Learner):
    def __init__(self, start: Start) -> None:
        super().__init__(start.policy, bind(start, reader="flow_matching"))
        node = next(node for node in start.policy.plan.nodes if node.role == "policy")
        self.name, self.features = node.name, start.policy.reading(node.sources)
        _normalize(self._head, self.data.acted(start.episodes.rows(torch.arange(len(start.episodes))))[0])

    @property
    def _head(self) -> FlowHead:
        head = bare(self.policy.components[self.name])
        assert isinstance(head, FlowHead)
        return head

    def loss(self, batch: Batch) -> Loss:
        head = self._head
        target_NHD, real_NH = self._chunks(batch, head)
        target = target_NHD.flatten(1)
        noise, time = (batch.known[name] for name in ("noise", "time")) if batch.known else _draw(target)
        features = torch.cat([edge.flatten(1) for edge in self.features(*batch.observations)], -1)
        velocity = head.velocity(features, (1 - time) * noise + time * target, time)
        error = (velocity - (target - noise)).square().unflatten(1, (head.horizon, head.size)).mean(-1)
        flow = (error * real_NH).sum() / real_NH.sum()
        return Loss(flow, {"flow_loss": flow})

    def parts(self, batch: Batch, count: int) -> list[MicroBatch]:
        """Noise is drawn for the whole batch; steps after an episode's end count nowhere."""
        parts = super().parts(batch, count)
        if len(parts) == 1:
            return parts
        sizes, head = [len(part.batch.rows) for part in parts], self._head
        target_NHD, real_NH = self._chunks(batch, head)
        noise, time = (drawn.split(sizes) for drawn in _draw(target_NHD.flatten(1)))
        real = [(part.sum() / real_NH.sum()).item() for part in real_NH.split(sizes)]
        known = [{"noise": noise[i], "time": time[i]} for i in range(len(parts))]
        return [MicroBatch(part.batch._replace(known=known[i]), real[i]) for i, part in enumerate(parts)]

    @torch.no_grad()
    def measure(self, batch: Batch) -> Mapping[str, Tensor]:
        return action_metrics(self.policy, batch)

    def _chunks(self, batch: Batch, head: FlowHead) -> tuple[Tensor, Tensor]:
        """Normalised actions (N, H, D), and which are real (N, H)."""
        rows, real = self.data.chunk(batch.rows, head.horizon)
        actions = self.data.acted(rows.flatten())[0].reshape(*rows.shape, head.size)
        return (actions - head.centre) / head.spread, real.to(actions.device)


def _draw(target: Tensor) -> tuple[Tensor, Tensor]:
    """Noise (N, H·D), and times (N, 1)."""
    return torch.randn_like(target), torch.rand_like(target[:, :1])


@torch.no_grad()
def _normalize(head: FlowHead, actions: Tensor) -> None:
    flat = actions.reshape(len(actions), head.size)
    head.centre.copy_(flat.mean(0))
    head.spread.copy_(flat.std(0, correction=0).clamp(min=SMALLEST_SPREAD))
