"""Which rule updates which weights: an optimiser for each component that asks for one, and one for all others.

In: a policy and rules from the slot `optimizer`. Out: an optimiser as trainers step it. Norms and biases never decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor, nn

from policysmith.errors import ConfigError, Problem, did_you_mean
from policysmith.graph.plan import Plan
from policysmith.policy.parameter_exchange import Follower, Group
from policysmith.registry import PartSpec, Slot, part, register
from policysmith.training.optim.adam import Adam, laid_out_as
from policysmith.training.optim.schedules import Schedule, schedule
from policysmith.training.optim.step_guard import StepGuard
from policysmith.types import Dropout, NonNegative, Positive

__all__ = ["AdamRule", "AdamWRule", "OptimizerOption", "Optimizers", "Rule", "SgdRule", "check_rules", "optimize"]

OptimizerOption = Annotated[PartSpec | str, Slot("optimizer")]
Rate = Schedule | None
REST = "others"


class Rule(Protocol):
    """A registered optimiser: options, and what makes torch's optimiser of them.

    `learning_rate` is a function of progress in [0, 1], or None for the algorithm's own; whoever steps sets it.
    """

    learning_rate: Callable[[float], float] | None
    weight_decay: float

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch's optimiser of parameter groups, which state their own `weight_decay`."""
        ...


@register("adam", slot="optimizer")
class AdamRule:
    """Adam (arXiv 1412.6980), by torch's fused kernel; `weight_decay` is an L2 term of the gradient.

    Args:
        learning_rate: The rate, or a schedule of it; null takes the algorithm's.
        beta1: The decay of the mean gradient.
        beta2: The decay of the mean squared gradient.
        eps: What is added to the root of the mean square.
        weight_decay: The share of a weight that a step of rate 1 takes away.
    """

    def __init__(
        self,
        learning_rate: Rate = None,
        beta1: Dropout = 0.9,
        beta2: Dropout = 0.999,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        self.learning_rate, self.weight_decay = _rate(learning_rate), weight_decay
        self.options: dict[str, Any] = {"betas": (beta1, beta2), "eps": eps, "fused": True}

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch.optim.Adam."""
        return torch.optim.Adam(groups, **self.options)


@register("adamw", slot="optimizer")
class AdamWRule:
    """Adam with decoupled weight decay (arXiv 1711.05101), by torch's fused kernel.

    Args:
        learning_rate: The rate, or a schedule of it; null takes the algorithm's.
        beta1: The decay of the mean gradient.
        beta2: The decay of the mean squared gradient.
        eps: What is added to the root of the mean square.
        weight_decay: The share of a weight that a step of rate 1 takes away, apart from the gradient.
    """

    def __init__(
        self,
        learning_rate: Rate = None,
        beta1: Dropout = 0.9,
        beta2: Dropout = 0.999,
        eps: Positive = 1e-8,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        self.learning_rate, self.weight_decay = _rate(learning_rate), weight_decay
        self.options: dict[str, Any] = {"betas": (beta1, beta2), "eps": eps, "fused": True}

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch.optim.AdamW."""
        return torch.optim.AdamW(groups, **self.options)


@register("sgd", slot="optimizer")
class SgdRule:
    """Stochastic gradient descent, with momentum if there is any.

    Args:
        learning_rate: The rate, or a schedule of it; null takes the algorithm's.
        momentum: The decay of the velocity.
        nesterov: Whether the gradient is taken where the velocity leads.
        weight_decay: What is added to the gradient for each unit of a weight.
    """

    def __init__(
        self,
        learning_rate: Rate = None,
        momentum: Dropout = 0.0,
        nesterov: bool = False,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        if nesterov and not momentum:
            raise ValueError(f"nesterov needs momentum > 0, found {momentum:g}")
        self.learning_rate, self.weight_decay = _rate(learning_rate), weight_decay
        self.options: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov}

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """torch.optim.SGD."""
        return torch.optim.SGD(groups, **self.options)


class Optimizers:
    """Several rules as one optimiser, each over parameters of its own; used like `Adam`.

    `rules` maps a name to (rule, parameters). Gradients are clipped by their norm over all of them. `state()` and
    `load_state()` are flat mappings of tensors, `<name>/<index>/<key>`.
    """

    def __init__(self, rules: Mapping[str, tuple[Rule, Sequence[nn.Parameter]]], learning_rate: float = 1e-3) -> None:
        self._rules = {name: rule for name, (rule, _) in rules.items()}
        self._inner = {
            name: rule.make(_groups(parameters, rule.weight_decay, learning_rate))
            for name, (rule, parameters) in rules.items()
        }
        self.learning_rate = learning_rate
        self._on_gradients: list[Callable[[], None]] = []
        self.followers: list[Follower] = []  # who goes along when a swap exchanges parameters
        self.guard = StepGuard()

    @property
    def torch_optimizer(self) -> torch.optim.Optimizer:
        """The last of torch's own to be stepped: what hooks on a step are for has happened then."""
        return list(self._inner.values())[-1]

    @property
    def torch_optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """torch's own, by name."""
        return self._inner

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for inner in self._inner.values() for group in inner.param_groups for p in group["params"]]

    def advance(self, progress: float, learning_rate: float) -> None:
        """Set every step size for a progress in [0, 1]: a rule's own, else the one given."""
        self.learning_rate = learning_rate
        for name, inner in self._inner.items():
            own = self._rules[name].learning_rate
            for group in inner.param_groups:
                group["lr"] = learning_rate if own is None else own(progress)

    def rates(self) -> dict[str, float]:
        """The present step size of each rule that has parameters."""
        groups = {name: inner.param_groups for name, inner in self._inner.items()}
        return {name: float(found[0]["lr"]) for name, found in groups.items() if any(g["params"] for g in found)}

    def group_of_component(self, component: str) -> Group | None:
        """The group for parameters of a component of which nothing learned before: of its own rule, else the usual."""
        inner = self._inner.get(rule_name(component), self._inner.get(REST))
        return None if inner is None else inner.param_groups[0]

    def group_beside(self, group: Group, parameter: nn.Parameter) -> Group:
        """Of the rule that has this group, the group for such a parameter: with or without decay."""
        groups = next(
            inner.param_groups for inner in self._inner.values() if any(g is group for g in inner.param_groups)
        )
        return groups[0] if parameter.dim() >= 2 else groups[-1]

    def on_gradients(self, look: Callable[[], None]) -> None:
        """Have `look` called in every step, between backward and clipping."""
        self._on_gradients.append(look)

    def step(self, loss: Tensor | Iterable[Tensor], max_grad_norm: float | None = None) -> None:
        """Backward, clip to `max_grad_norm`, update; gradients of several losses add up.

        No rule updates by a loss or gradients that are not finite; `guard` counts them.
        """
        self.guard.step(list(self._inner.values()), self.parameters, loss, max_grad_norm, self._on_gradients)

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts of every rule."""
        return {
            f"{name}/{i}/{key}": tensor.detach().clone()
            for name, inner in self._inner.items()
            for i, entry in inner.state_dict()["state"].items()
            for key, tensor in entry.items()
            if isinstance(tensor, Tensor)
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for name, inner in self._inner.items():
            parameters = [p for group in inner.param_groups for p in group["params"]]
            entries: dict[int, dict[str, Tensor]] = {}
            for path, tensor in state.items():
                owner, index, key = path.rsplit("/", 2)
                if owner == name:
                    if key != "step":
                        tensor = laid_out_as(parameters[int(index)], tensor)
                    entries.setdefault(int(index), {})[key] = tensor
            inner.load_state_dict({"state": entries, "param_groups": inner.state_dict()["param_groups"]})


def check_rules(plan: Plan, optimizers: Mapping[str, PartSpec]) -> list[Problem]:
    """What is wrong with the components that optimisers are stated for."""
    names = [node.name for node in plan.nodes]
    problems = []
    for name in optimizers:
        path = f"training.optimizers.{name}"
        if name not in names:
            hint = did_you_mean(name, names) or f"; there are: {', '.join(names)}"
            problems.append(Problem(path, f"there is no component {name!r}{hint}"))
        elif not plan.node(name).trainable:
            problems.append(Problem(path, f"nothing of {name!r} learns: leave it out"))
        elif plan.node(name).spec.use:
            problems.append(Problem(path, f"the weights are those of {plan.node(name).spec.use!r}: state it there"))
    return problems


def optimize(
    components: Mapping[str, nn.Module],
    usual: PartSpec | str | None,
    optimizers: Mapping[str, PartSpec | str],
    *,
    eps: float = 1e-8,
    extra: Sequence[nn.Parameter] = (),
) -> Adam | Optimizers:
    """The optimiser of all that learns in components, and of `extra` parameters.

    `usual` is for whatever has none in `optimizers`, by component. Without either it is plain `Adam` with `eps`.
    """
    learning = _unique([*(p for c in components.values() for p in c.parameters()), *extra])
    if usual is None and not optimizers:
        return Adam(learning, eps=eps)
    rules: dict[str, tuple[Rule, Sequence[nn.Parameter]]] = {}
    taken: set[int] = set()
    for name, option in optimizers.items():
        own = [p for p in _unique(components[name].parameters()) if id(p) not in taken] if name in components else []
        rules[rule_name(name)] = (_rule(option), own)
        taken |= {id(p) for p in own}
    rest = _rule(usual if usual is not None else {"type": "adam", "eps": eps})
    rules[REST] = (rest, [p for p in learning if id(p) not in taken])
    return Optimizers(rules)


def rule_name(component: str) -> str:
    """What the rule of a component of its own is called."""
    return f"component/{component}"


def _rule(option: Any) -> Rule:
    try:
        made: Rule = part("optimizer", option).build()
    except ValueError as error:
        raise ConfigError([Problem("training.optimizer", str(error))]) from error
    return made


def _rate(learning_rate: Rate) -> Callable[[float], float] | None:
    return None if learning_rate is None else schedule(learning_rate)


def _groups(parameters: Sequence[nn.Parameter], weight_decay: float, learning_rate: float) -> list[dict[str, Any]]:
    """Weights of two axes or more decay; those of norms, and biases, do not. An empty group waits for a swap."""
    if not weight_decay:
        return [{"params": list(parameters), "lr": learning_rate, "weight_decay": 0.0}]
    decaying = [p for p in parameters if p.dim() >= 2]
    others = [p for p in parameters if p.dim() < 2]
    groups = [(decaying, weight_decay), (others, 0.0)]
    return [{"params": group, "lr": learning_rate, "weight_decay": decay} for group, decay in groups]


def _unique(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(p): p for p in parameters if p.requires_grad}.values())
