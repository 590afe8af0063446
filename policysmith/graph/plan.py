"""The plan: every edge's shape and dtype, known before a weight is allocated.

One pass on meta tensors, component by component; B is the batch axis, never written in a `TensorSpec`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from policysmith.errors import did_you_mean
from policysmith.graph.component import TensorComponent, takes_aux
from policysmith.graph.memory import MemoryComponent, MemoryStep, SequenceStep, has_memory
from policysmith.graph.program import Step
from policysmith.graph.spec import ComponentSpec
from policysmith.graph.wiring import Report, wire
from policysmith.registry import PartSpec

__all__ = ["NodePlan", "Plan", "TensorSpec", "make_plan"]

PLAN_BATCH = 13  # no event has this size by chance as easily as 1 or 2


@dataclass(frozen=True)
class TensorSpec:
    """One edge: the shape of one row's event, its dtype, and for category indices each variable's number of values."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    categories: tuple[int, ...] | None = None

    @property
    def features(self) -> int:
        """The number of numbers in one event."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Memory of one row."""
        return self.features * self.dtype.itemsize


@dataclass(frozen=True)
class Measure:
    """What one pass of a part on meta tensors tells.

    `state` is what it keeps between steps, by name; `aux` names the auxiliary losses and statistics it reports.
    """

    outputs: tuple[TensorSpec, ...]
    parameters: int
    parameter_bytes: int
    buffers: int
    buffer_bytes: int
    flops: int
    activation_bytes: int
    state: tuple[tuple[str, TensorSpec], ...] = ()
    takes_aux: bool = False
    aux: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodePlan:
    """One component in the plan: its part, edges, inferred arguments and measures (all per row of the batch)."""

    spec: ComponentSpec
    part: PartSpec
    sources: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    context: Mapping[str, Any]
    joins: bool
    measure: Measure

    @property
    def name(self) -> str:
        """The component's name."""
        return self.spec.name

    @property
    def role(self) -> str | None:
        """`policy`, `value`, or None."""
        return self.part.entry.traits.get("role")

    def component(self, module: nn.Module) -> TensorComponent:
        """A module built for this node as a component with its keys."""
        keys = (self.sources, self.spec.out_keys, self.spec.arguments, self.event_ndims)
        if self.measure.state:
            return MemoryComponent(module, self.name, len(self.inputs[0].shape), *keys)
        return TensorComponent(module, *keys)

    def step(self, store: nn.ModuleDict, *, sequence: bool = False) -> Step:
        """This node in a program over the live components of `store`: of one step, or of a sequence."""
        step = Step(store, self.name, self.sources, self.spec.out_keys, takes_aux=self.measure.takes_aux)
        if not self.measure.state:
            return step
        return (SequenceStep if sequence else MemoryStep)(step, [key for key, _ in self.measure.state])

    @property
    def state_bytes(self) -> int:
        """Memory that one row keeps between steps."""
        return sum(spec.bytes for _, spec in self.measure.state)

    @property
    def event_ndims(self) -> tuple[int, ...] | None:
        """Trailing dimensions of each input, where the inputs are flattened and joined before the part sees them."""
        return tuple(len(spec.shape) for spec in self.inputs) if self.joins else None


@dataclass(frozen=True)
class Plan:
    """The whole graph: inputs, nodes in the order they run, and every edge's spec."""

    inputs: Mapping[str, TensorSpec]
    nodes: tuple[NodePlan, ...]
    edges: Mapping[str, TensorSpec] = field(default_factory=dict)

    def node(self, name: str) -> NodePlan:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    @property
    def parameter_count(self) -> int:
        """Parameters of the built model, shared ones once."""
        return sum(node.measure.parameters for node in self.nodes if node.spec.use is None)


def make_plan(
    components: Mapping[str, ComponentSpec],
    inputs: Mapping[str, TensorSpec],
    report: Report,
    context: Mapping[str, Any] | None = None,
) -> Plan | None:
    """Wire and measure; problems go to `report(path, message)` and make the result None.

    `context` holds what the caller knows: kinds of `Infer` beyond shapes.
    """
    wiring = wire(components, list(inputs), report)
    if wiring is None or not _check_use(components, report):
        return None
    edges: dict[str, TensorSpec] = dict(inputs)
    nodes: dict[str, NodePlan] = {}
    for name in wiring.order:
        spec = components[name]
        part = components[spec.use].part if spec.use else spec.part
        assert part is not None
        sources = wiring.sources[name]
        if any(source not in edges for source in sources):
            continue  # its producer failed; that problem is already reported
        node = _plan_node(spec, part, sources, [edges[s] for s in sources], context or {}, report)
        if node is not None:
            nodes[name] = node
            edges.update(zip(spec.out_keys, node.measure.outputs, strict=True))
    if len(nodes) < len(components) or not _shares_fit(nodes, report):
        return None
    return Plan(dict(inputs), tuple(nodes.values()), edges)


def _check_use(components: Mapping[str, ComponentSpec], report: Report) -> bool:
    good = True
    for name, spec in components.items():
        if spec.use is not None and (spec.use not in components or components[spec.use].use is not None):
            hint = did_you_mean(spec.use, (n for n, s in components.items() if s.use is None))
            what = "which shares itself" if spec.use in components else f"which does not exist{hint}"
            report((name, "use"), f"shares the weights of {spec.use!r}, {what}")
            good = False
    return good


def _shares_fit(nodes: Mapping[str, NodePlan], report: Report) -> bool:
    """Whether components that share weights were inferred alike: the weights are the owner's."""
    good = True
    for name, node in nodes.items():
        owner = nodes[node.spec.use] if node.spec.use is not None else node
        for kind, value in node.context.items():
            if _plain(owner.context[kind]) != _plain(value):
                found = _show_edges(node.sources, node.inputs)
                report(
                    (name,),
                    f"{owner.name!r} was built for {kind} {owner.context[kind]}; it reads {found}, which gives {value}",
                )
                good = False
    return good


def _plan_node(
    spec: ComponentSpec,
    part: PartSpec,
    sources: tuple[str, ...],
    inputs: Sequence[TensorSpec],
    context: Mapping[str, Any],
    report: Report,
) -> NodePlan | None:
    kinds = part.entry.schema.inferred
    joins = "flat_features" in kinds.values()
    try:
        known = {kind: context[kind] if kind in context else _infer(kind, inputs) for kind in set(kinds.values())}
    except ValueError as error:
        report((spec.name,), f"{part.type!r} {error}; it reads {_show_edges(sources, inputs)}")
        return None
    known = {kind: value for kind, value in known.items() if value is not None}
    stated = part.stated()
    wrong = [name for name in stated if _plain(known.get(kinds[name], stated[name])) != _plain(stated[name])]
    for name in wrong:
        report((spec.name, name), f"stated as {stated[name]!r}, but the inputs give {known[kinds[name]]!r}")
    if wrong:
        return None
    try:
        measure = _measure(part, tuple(inputs), spec.arguments, joins, _freeze(known))
    except Exception as error:
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        report((spec.name,), f"{part.type!r} cannot take {_show_edges(sources, inputs)}: {reason}{_nhwc_hint(inputs)}")
        return None
    if len(measure.outputs) != len(spec.out_keys):
        report(
            (spec.name, "out_keys"),
            f"{len(spec.out_keys)} names for {len(measure.outputs)} outputs of {part.type!r}",
        )
        return None
    return NodePlan(spec, part, sources, tuple(inputs), known, joins, measure)


def _infer(kind: str, inputs: Sequence[TensorSpec]) -> Any:
    """The value of one kind of inferred argument; None where it does not follow from shapes."""
    first = inputs[0]
    if kind == "flat_features":
        return sum(spec.features for spec in inputs)
    if kind == "features":
        if not first.shape:
            raise ValueError("needs features, found a scalar")
        return first.shape[-1]
    if kind == "channels":
        if not first.shape:
            raise ValueError("needs channels, found a scalar")
        return first.shape[0]
    if kind == "image_shape":
        if len(first.shape) != 3:
            raise ValueError("needs an image (C, H, W)")
        return first.shape
    if kind == "event_shape":
        return first.shape
    if kind == "event_shapes":
        return tuple(spec.shape for spec in inputs)
    if kind in ("categories", "num_embeddings"):
        if first.categories is None:
            raise ValueError("needs category indices: a Discrete or MultiDiscrete observation")
        return first.categories if kind == "categories" else max(first.categories)
    return None


@lru_cache(maxsize=4096)
def _measure(
    part: PartSpec,
    inputs: tuple[TensorSpec, ...],
    arguments: tuple[str, ...] | None,
    joins: bool,
    known: tuple[tuple[str, Any], ...],
) -> Measure:
    with torch.device("meta"):
        module = part.build(**dict(known))
        tensors = [torch.empty((PLAN_BATCH, *spec.shape), dtype=spec.dtype) for spec in inputs]
    if joins:
        tensors = [torch.empty((PLAN_BATCH, sum(s.features for s in inputs)), device="meta")]
    aux: dict[str, Any] = {}
    reports = takes_aux(module)
    sink = {"aux": aux} if reports else {}
    named = dict(zip(arguments, tensors, strict=True)) if arguments else {}
    state: dict[str, Tensor] = {}
    with torch.no_grad(), torch.device("meta"):
        if has_memory(module):
            state = module.initial_state(PLAN_BATCH)
            tensors = [*tensors, state]  # type: ignore[list-item]
        with _Cost() as cost:
            result = module(**named, **sink) if named else module(*tensors, **sink)
    if state:
        result, after = result
        _check_state(state, after)
    results = result if isinstance(result, tuple | list) else (result,)
    for tensor in results:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"it gives a {type(tensor).__name__} where a tensor, or a tuple of tensors, is expected")
        if tensor.dim() == 0 or tensor.shape[0] != PLAN_BATCH:
            raise ValueError(f"its output {tuple(tensor.shape)} lost the batch axis")
    return Measure(
        outputs=tuple(TensorSpec(tuple(t.shape[1:]), t.dtype) for t in results),
        **_counts(module),
        flops=cost.flops // PLAN_BATCH,
        activation_bytes=cost.bytes // PLAN_BATCH,
        state=tuple((name, TensorSpec(tuple(t.shape[1:]), t.dtype)) for name, t in state.items()),
        takes_aux=reports,
        aux=tuple(aux),
    )


def _check_state(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """The state must keep its names, shapes and dtypes from step to step."""
    looks = [{name: (tuple(t.shape), t.dtype) for name, t in state.items()} for state in (before, after)]
    if looks[0] != looks[1]:
        raise ValueError(f"its state changes from {looks[0]} to {looks[1]} in one step")


def _counts(module: nn.Module) -> dict[str, int]:
    parameters = list(module.parameters())
    buffers = list(module.buffers())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "parameter_bytes": sum(p.numel() * p.itemsize for p in parameters),
        "buffers": sum(b.numel() for b in buffers),
        "buffer_bytes": sum(b.numel() * b.itemsize for b in buffers),
    }


class _Cost(TorchDispatchMode):
    """Adds up FLOPs (2 × multiply-adds, torch's own formulas) and the bytes that operations write."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        if not func.is_view and not func._schema.is_mutable:
            outputs = out if isinstance(out, tuple | list) else (out,)
            self.bytes += sum(t.numel() * t.itemsize for t in outputs if isinstance(t, Tensor))
        return out


def _freeze(known: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in known.items()))


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _show_edges(sources: Sequence[str], inputs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{name} {tuple(spec.shape)}" for name, spec in zip(sources, inputs, strict=True))


def _nhwc_hint(inputs: Sequence[TensorSpec]) -> str:
    for spec in inputs:
        if len(spec.shape) == 3 and spec.shape[-1] in (1, 3, 4) and spec.shape[0] > spec.shape[-1]:
            return " (looks like NHWC; expected channels first)"
    return ""
