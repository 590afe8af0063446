"""Mixture of experts: each row goes through the few feedforwards that its router chose.

In and out: (*, D). N rows, E experts, K choices a row; B samples, T tokens, S slots of soft routing.
"""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from torch import Tensor, nn

from policysmith.config.signatures import Repeated
from policysmith.ops.balance import add_loss, add_statistics, balance_loss, expert_load, z_loss
from policysmith.ops.route import Implementation, Routing, mix, probabilities
from policysmith.parts.feedforward.experts import ExpertList, FrozenExperts
from policysmith.parts.feedforward.soft_router import SoftRouter
from policysmith.parts.feedforward.two_layers import FeedForwardPart
from policysmith.registry import PartSpec, Slot, part, register
from policysmith.types import Count, Dim, NonNegative, NonNegativeInt, Repeats

__all__ = ["MixtureOfExperts", "Router", "update_biases"]

Router = Annotated[PartSpec | str, Slot("router")]


@register("moe", slot="feedforward", causal=True)
class MixtureOfExperts(nn.Module):
    """Sparsely gated mixture of experts (arXiv 1701.06538), without capacity limits: no row is ever dropped.

    `top_k`: experts a row (2, or all if fewer), for routers that choose by score.
    `shared_experts`: experts that every row takes as well, added ungated (DeepSeekMoE, arXiv 2401.06066).
    `implementation`: how chosen experts are computed (`policysmith.ops.route`); auto decides by the number of rows.
    `balance_coef` (0.01), `z_coef` (0.001): weights of `load_balance_loss` and `router_z_loss`, which a forward adds
        to its sink `aux` if it is given one; for routers with scores.

    Each expert has parameters of its own, and those that no row chose get no gradient.

    Args:
        experts: How many experts there are.
        top_k: How many experts a token uses; 2 by default, or what the router says.
        expert: The network of an expert.
        router: How experts are chosen.
        shared_experts: How many further experts every token uses.
        implementation: How chosen experts are computed; all ways give the same result.
        balance_coef: The weight of the load-balancing loss; null takes the router's.
        z_coef: The weight of the loss on large router logits; null takes the router's.
    """

    experts: ExpertList | FrozenExperts

    def __init__(
        self,
        dim: Dim,
        experts: Repeats = 8,
        top_k: Count | None = None,
        expert: FeedForwardPart = "mlp",
        router: Router = "topk",
        shared_experts: Annotated[NonNegativeInt, Repeated()] = 0,
        implementation: Implementation = "auto",
        balance_coef: NonNegative | None = None,
        z_coef: NonNegative | None = None,
    ) -> None:
        super().__init__()
        if experts < 1:
            raise ValueError(f"experts={experts}, but a mixture needs at least 1")
        if top_k is not None and not 1 <= top_k <= experts:
            raise ValueError(f"top_k={top_k} is not between 1 and experts={experts}")
        router_spec, expert_spec = part("router", router), part("feedforward", expert)
        if expert_spec.type == "moe":
            raise ValueError("an expert can't be a mixture itself: use mlp, swiglu, geglu or reglu")
        coefficients = {"balance_coef": balance_coef, "z_coef": z_coef}
        _refuse_unused(router_spec, top_k, coefficients, implementation)
        self.implementation = implementation
        self.balance_coef = 0.01 if balance_coef is None else balance_coef
        self.z_coef = 0.001 if z_coef is None else z_coef
        self.experts = ExpertList(expert_spec.build(dim=dim) for _ in range(experts))
        self.router = router_spec.build(dim=dim, experts=experts, top_k=top_k or min(2, experts))
        self.shared = nn.ModuleList(expert_spec.build(dim=dim) for _ in range(shared_experts))

    def forward(self, x: Tensor, aux: dict[str, Tensor] | None = None, task: Tensor | None = None) -> Tensor:
        """x (*, D) → (*, D).

        `aux`: losses, already weighted, and statistics (`policysmith.ops.balance`) are added to it.
        `task`: ids for a router that goes by task; its shape is that of the leading dimensions of x, or of the first
        few of them. Soft routing takes dimension -2 of three or more as the tokens of one sample; each row of fewer is
        a sample of its own.
        """
        y = self._mix_softly(x, aux) if isinstance(self.router, SoftRouter) else self._mix_rows(x, aux, task)
        for expert in self.shared:
            y = y + expert(x)
        return y

    def frozen(self) -> MixtureOfExperts:
        """A copy for inference with the experts' weights stacked: equal outputs, refuses training."""
        if isinstance(self.experts, FrozenExperts):
            return copy.deepcopy(self)
        experts = FrozenExperts(list(self.experts))
        twin = copy.deepcopy(self, {id(self.experts): experts})
        return twin.eval().requires_grad_(False)

    def _mix_rows(self, x: Tensor, aux: dict[str, Tensor] | None, task: Tensor | None) -> Tensor:
        x_ND = x.reshape(-1, x.shape[-1])
        routing = self.router(x_ND, None if task is None else _rows_of(task, x))
        if aux is not None:
            self._report(routing, aux)
        return mix(x_ND, routing, self.experts, self.implementation).view(x.shape)

    def _report(self, routing: Routing, aux: dict[str, Tensor]) -> None:
        load_E, probs_NE = expert_load(routing.experts_NK, len(self.experts)), None
        if routing.logits_NE is not None:
            probs_NE = probabilities(routing.logits_NE, routing.score)
            add_loss(aux, "load_balance_loss", self.balance_coef * balance_loss(probs_NE, load_E))
            add_loss(aux, "router_z_loss", self.z_coef * z_loss(routing.logits_NE))
        add_statistics(aux, load_E, probs_NE)

    def _mix_softly(self, x: Tensor, aux: dict[str, Tensor] | None) -> Tensor:
        x_BTD = x.flatten(0, -3) if x.dim() > 2 else x.reshape(-1, 1, x.shape[-1])
        dispatch_BTS, combine_BTS = self.router(x_BTD)
        slots_BSD = dispatch_BTS.to(x.dtype).transpose(1, 2) @ x_BTD
        pieces = slots_BSD.chunk(len(self.experts), 1)
        made_BSD = torch.cat([self.experts.one(index, piece) for index, piece in enumerate(pieces)], 1)
        if aux is not None:
            probs_NE = combine_BTS.detach().flatten(0, 1).unflatten(1, (len(pieces), -1)).sum(-1)
            add_statistics(aux, probs_NE.float().sum(0) / max(len(probs_NE), 1), probs_NE)
        return (combine_BTS.to(made_BSD.dtype) @ made_BSD).view(x.shape)


def update_biases(module: nn.Module, load_LE: Tensor) -> None:
    """`update_bias` of every mixture in a module, with its row of `moe/load`.

    Rows are in the order of the calls, mixtures in that of `modules()`: the same in a stack of blocks. Mixtures without
    a bias are passed over. Raises ValueError if there are not as many rows as mixtures.
    """
    mixtures = [m for m in module.modules() if isinstance(m, MixtureOfExperts)]
    if len(mixtures) != len(load_LE):
        raise ValueError(f"{len(load_LE)} rows of load for {len(mixtures)} mixtures: update after a single forward")
    for mixture, load_E in zip(mixtures, load_LE, strict=True):
        if getattr(mixture.router, "bias_steps", None) is not None:
            mixture.router.update_bias(load_E[: len(mixture.experts)])


def _refuse_unused(
    router: PartSpec, top_k: int | None, coefficients: dict[str, float | None], implementation: Implementation
) -> None:
    """Options that this router would ignore are errors."""
    traits, takes = router.entry.traits, router.entry.schema.inferred.values()
    stated: dict[str, object] = {"top_k": top_k} if "top_k" not in takes else {}
    stated |= coefficients if not traits.get("scored", True) else {}
    if router.type == "soft" and implementation != "auto":
        stated |= {"implementation": implementation}
    for name, value in stated.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} means nothing to router {router.type!r}: leave it out")


def _rows_of(task: Tensor, x: Tensor) -> Tensor:
    """The task of each row of x (*, D) as (N,), from ids for its leading dimensions or the first few of them."""
    lead = x.shape[:-1]
    if tuple(task.shape) != tuple(lead[: task.dim()]):
        raise ValueError(f"task of shape {tuple(task.shape)} does not fit rows of shape {tuple(lead)}")
    return task[(..., *(None,) * (len(lead) - task.dim()))].expand(lead).reshape(-1)
