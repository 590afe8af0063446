"""Which rule updates which weights: commonly one for all, and others for components that ask for their own.

In: a policy and rules from the slot `optimizer`. Out: an optimiser as trainers step it. Norms and biases never decay.
torch's fused kernels do the arithmetic, and `step_guard` clips in few launches: for small networks the Python around
the kernels, as `clip_grad_norm_` has it, costs more than they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from policysmith.errors import ConfigError, Problem, did_you_mean
from policysmith.graph.plan import Plan
from policysmith.policy.parameter_exchange import Follower, Group
from policysmith.registry import PartSpec, part
from policysmith.training.optim.rules import AdamRule, Rule
from policysmith.training.optim.snapshot import Snapshot
from policysmith.training.optim.step_guard import StepGuard

__all__ = [
    "Optimizers",
    "by_rule",
    "check_rules",
    "laid_out_as",
    "optimize",
    "stored_state",
    "REST",
    "STORED",
    "STORED_BEFORE",
]

REST = "others"  # the rule of whatever has none of its own
STORED, STORED_BEFORE = "optimizer/", "adam/"  # where a run's tensors have its optimiser's, and had them at first


class Optimizers:
    """Rules as one optimiser, each over parameters of its own.

    `rules` maps a name to (rule, parameters). Gradients are clipped by their norm over all of them. `state()` and
    `load_state()` are flat mappings of tensors, `<name>/<index>/<key>`, fit for safetensors.
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
        self.snapshot: Snapshot | None = None  # of the present state, where a run has made one since the last step

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter], learning_rate: float = 1e-3, rule: Rule | None = None) -> Self:
        """The usual case: one rule for all, Adam where none is given."""
        return cls({REST: (rule or AdamRule(), list(parameters))}, learning_rate)

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
        self.snapshot = None
        self.guard.step(list(self._inner.values()), self.parameters, loss, max_grad_norm, self._on_gradients)

    def moments(self) -> dict[str, Tensor]:
        """Moments and step counts of every rule themselves, no copies."""
        return {
            f"{name}/{i}/{key}": tensor
            for name, inner in self._inner.items()
            for i, entry in inner.state_dict()["state"].items()
            for key, tensor in entry.items()
            if isinstance(tensor, Tensor)
        }

    def state(self) -> dict[str, Tensor]:
        """Copies of them."""
        return {name: tensor.detach().clone() for name, tensor in self.moments().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave, also of a time when the usual rule had no name in it."""
        state = by_rule(state)
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
) -> Optimizers:
    """The optimiser of all that learns in components, and of `extra` parameters.

    `usual` is for whatever has none in `optimizers`, by component; Adam with `eps` where it is not stated.
    """
    learning = _unique([*(p for c in components.values() for p in c.parameters()), *extra])
    rules: dict[str, tuple[Rule, Sequence[nn.Parameter]]] = {}
    taken: set[int] = set()
    for name, option in optimizers.items():
        own = [p for p in _unique(components[name].parameters()) if id(p) not in taken] if name in components else []
        rules[rule_name(name)] = (_rule(option), own)
        taken |= {id(p) for p in own}
    rest = AdamRule(eps=eps) if usual is None else _rule(usual)
    rules[REST] = (rest, [p for p in learning if id(p) not in taken])
    return Optimizers(rules)


def stored_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a run's tensors those of its optimiser, by the names that `state()` gave them."""
    before = not any(name.startswith(STORED) for name in tensors)
    prefix = STORED_BEFORE if before else STORED
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def by_rule(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state by `<name>/<index>/<key>`; `<index>/<key>` is of a time when the usual rule had no name."""
    return {path if path.count("/") > 1 else f"{REST}/{path}": tensor for path, tensor in state.items()}


def rule_name(component: str) -> str:
    """What the rule of a component of its own is called."""
    return f"component/{component}"


def _rule(option: Any) -> Rule:
    try:
        made: Rule = part("optimizer", option).build()
    except ValueError as error:
        raise ConfigError([Problem("training.optimizer", str(error))]) from error
    return made


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


@torch.no_grad()
def laid_out_as(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A copy of a whole tensor as its parameter lies: in memory, which fused kernels walk, and over processes."""
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
