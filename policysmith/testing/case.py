"""What a law is held against: one type with inputs that it takes, as a plan, a model or its random inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from policysmith.compile.model import GraphModel
from policysmith.config.options import failures
from policysmith.errors import ConfigError, Problem
from policysmith.graph.assemble import build_modules
from policysmith.graph.component import Component
from policysmith.graph.plan import Plan, TensorSpec, make_plan
from policysmith.graph.spec import decode_components
from policysmith.registry import Registry, default_registry

__all__ = ["PART", "Case", "Subject", "outcome", "require", "require_same", "tuple_of"]

PART = "part"  # what the one component of a case is called


@dataclass(frozen=True)
class Case:
    """One way to use a type.

    Args:
        inputs: The shape and dtype of each input, without the batch axis.
        options: What the configuration states, `in_keys` as a mapping too.
        context: What the caller of a build supplies, such as `action_layout`.
        outputs: How many tensors it gives.
        without_gradient: Parameters that get none from one pass, each with the reason.
    """

    inputs: tuple[TensorSpec, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    without_gradient: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A component type by name, and one case of it."""

    name: str
    case: Case
    registry: Registry = default_registry

    @property
    def input_names(self) -> list[str]:
        """The keys that its inputs are given under."""
        return [f"in{i}" for i in range(len(self.case.inputs))]

    @property
    def config(self) -> dict[str, Any]:
        """The components of a graph that holds this one type."""
        out = {"out_keys": [f"out{i}" for i in range(self.case.outputs)]} if self.case.outputs > 1 else {}
        return {PART: {"type": self.name, "in_keys": self.input_names, **out, **self.case.options}}

    def plan(self, extra: Mapping[str, Any] | None = None, wrappers: Iterable[Any] = ()) -> Plan:
        """Its plan; `extra` components come first. Raises `ConfigError` with all that is wrong."""
        config = self.config
        if wrappers:
            config[PART]["wrappers"] = list(wrappers)
        problems: list[Problem] = []
        try:
            components = decode_components({**(extra or {}), **config}, self.registry).components
        except ValidationError as error:
            raise ConfigError([Problem(".".join(map(str, p)), text) for p, text in failures(error)]) from None
        plan = make_plan(
            components,
            dict(zip(self.input_names, self.case.inputs, strict=True)),
            lambda path, text: problems.append(Problem(".".join(map(str, path)), text)),
            self.case.context,
        )
        if plan is None or problems:
            raise ConfigError(problems)
        return plan

    def model(self, seed: int | None = 0, wrappers: Iterable[Any] = ()) -> GraphModel:
        """A model of this one component."""
        plan = self.plan(wrappers=wrappers)
        keys = plan.node(PART).spec.out_keys
        return GraphModel(plan, build_modules(plan, seed), keys[0] if len(keys) == 1 else keys, seed)

    def component(self) -> Component:
        """The component alone, with the weights of seed 0."""
        plan = self.plan()
        return plan.node(PART).component(build_modules(plan, 0)[PART])

    def tensors(self, batch: int = 3, seed: int = 1) -> list[Tensor]:
        """Random inputs (batch, *shape): normal, or whole numbers in range."""
        return tensors_of(self.case.inputs, batch, seed)

    def leaves(self, batch: int = 4) -> list[Tensor]:
        """Random inputs that want gradients where they are floats."""
        return [t.requires_grad_(t.is_floating_point()) for t in self.tensors(batch)]


def tensors_of(specs: Iterable[TensorSpec], batch: int, seed: int = 1) -> list[Tensor]:
    """Random tensors (batch, *shape) of each spec."""
    generator = torch.Generator().manual_seed(seed)
    return [_tensor(spec, batch, generator) for spec in specs]


def _tensor(spec: TensorSpec, batch: int, generator: torch.Generator) -> Tensor:
    shape = (batch, *spec.shape)
    if spec.categories is not None:
        columns = [torch.randint(n, (batch,), generator=generator) for n in spec.categories]
        return (torch.stack(columns, -1) if spec.shape else columns[0]).to(spec.dtype)
    if spec.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(spec.dtype)
    return torch.randint(100, shape, generator=generator).to(spec.dtype)


def tuple_of(output: Any) -> tuple[Tensor, ...]:
    """A model's output as a tuple of tensors."""
    return (output,) if isinstance(output, Tensor) else tuple(output)


def require(holds: bool, message: str) -> None:
    """Raise AssertionError with the message unless it holds; unlike `assert` it is never optimised away."""
    if not holds:
        raise AssertionError(message)


def outcome(call: Any, model: nn.Module, inputs: list[Tensor]) -> dict[str, Tensor | None]:
    """Outputs, gradients of a sum that weighs them all, and buffers, after one pass."""
    torch.manual_seed(0)
    outputs = tuple_of(call(*inputs))
    found: dict[str, Tensor | None] = {f"output {i}": o.detach().clone() for i, o in enumerate(outputs)}
    if any(o.requires_grad for o in outputs):
        total = [(o * torch.linspace(0.5, 2, o.numel()).view(o.shape)).sum() for o in outputs if o.requires_grad]
        torch.autograd.backward(total)
    found |= {f"gradient of input {i}": t.grad for i, t in enumerate(inputs)}
    found |= {f"gradient of {n}": p.grad for n, p in model.named_parameters()}
    return found | {f"buffer {n}": b.clone() for n, b in model.named_buffers()}


def require_same(found: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None]) -> None:
    """The same names and, bit for bit, the same tensors."""
    require(list(found) == list(expected), f"{list(found)} where {list(expected)} is expected")
    for name, value in found.items():
        other = expected[name]
        same = value is other if value is None or other is None else torch.equal(value, other)
        require(same, f"{name}: {value} where {other} is expected")
