"""The plan: every edge's shape and dtype, known before a weight is allocated.

One pass on meta tensors, component by component; B is the batch axis, never written in a `TensorSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from policysmith.config.limits import Limits
from policysmith.errors import did_you_mean
from policysmith.graph.call import Call
from policysmith.graph.capacity import fits, reason_of
from policysmith.graph.component import AUX, Component, TensorComponent, as_key, read_key, takes_aux, write_key
from policysmith.graph.measure import PLAN_BATCH, Budget, Cost, Measure, TensorSpec, check_state, measured, per_row
from policysmith.graph.memory_component import MemoryComponent, has_memory
from policysmith.graph.repeats import multiplied
from policysmith.graph.spec import ComponentSpec
from policysmith.graph.wiring import ReportProblem, wire
from policysmith.registry import PartSpec

__all__ = ["NodePlan", "Plan", "TensorSpec", "WrapperError", "make_plan", "measure_built"]


class WrapperError(ValueError):
    """A wrapper that doesn't fit its component: `index` is its place in the list."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


@dataclass(frozen=True)
class NodePlan:
    """One component in the plan: its part, edges, inferred arguments and measures (all per row of the batch).

    `measure` is of the component with its wrappers, `inner` of the part alone.
    """

    spec: ComponentSpec
    part: PartSpec
    sources: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    context: Mapping[str, object]
    joins: bool
    measure: Measure
    inner: Measure

    @property
    def name(self) -> str:
        """The component's name."""
        return self.spec.name

    @property
    def store_name(self) -> str:
        """The name of its module where modules are kept."""
        return self.spec.name

    @property
    def out_keys(self) -> tuple[str, ...]:
        """What it gives."""
        return self.spec.out_keys

    @property
    def takes_aux(self) -> bool:
        """Whether it reports auxiliary losses."""
        return self.measure.takes_aux

    def store(self, modules: nn.ModuleDict) -> nn.ModuleDict:
        """Where its module is looked up."""
        return modules

    @property
    def role(self) -> str | None:
        """`policy`, `value`, or None."""
        return self.part.entry.traits.get("role")

    def component(self, module: nn.Module) -> Component:
        """A module built for this node as a component with its keys, in its wrappers; raises `WrapperError`."""
        keys = (self.sources, self.spec.out_keys, self.spec.arguments, self.event_ndims, self.spec.call)
        component: Component = (
            MemoryComponent(module, self.name, self.event_ndim, *keys[:4])
            if has_memory(module)
            else TensorComponent(module, *keys)
        )
        context = {"component": self.name, "event_ndim": self.event_ndim, "out_shape": self.inner.outputs[0].shape}
        for index, wrapper in enumerate(self.spec.wrappers):
            try:
                component = wrapper.build(module=component, **context)
            except (ValueError, TypeError) as error:
                raise WrapperError(index, str(error)) from error
        return component

    @property
    def state_bytes(self) -> int:
        """Memory that one row keeps between steps."""
        return sum(spec.bytes for _, spec in self.measure.state)

    @property
    def trainable(self) -> int:
        """How many parameters learn."""
        return 0 if self.spec.freeze and not self.spec.wrappers else self.measure.trainable

    @property
    def event_ndim(self) -> int:
        """The number of dimensions of one row of the first input."""
        return len(self.inputs[0].shape)

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

    late: ClassVar[bool] = False  # every shape is known

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
    report: ReportProblem,
    context: Mapping[str, object] | None = None,
    limits: Limits | None = None,
) -> Plan | None:
    """Wire and measure; problems go to `report(path, message)` and make the result None.

    `context` holds what the caller knows: kinds of `Infer` beyond shapes. A model that is larger than `limits` is a
    problem (default: this machine's memory); nothing of its size is made before that is known.
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
    plan = Plan(dict(inputs), tuple(nodes.values()), edges)
    return plan if fits(plan.nodes, limits or Limits(), report) else None


def _check_use(components: Mapping[str, ComponentSpec], report: ReportProblem) -> bool:
    good = True
    for name, spec in components.items():
        if spec.use is not None and (spec.use not in components or components[spec.use].use is not None):
            hint = did_you_mean(spec.use, (n for n, s in components.items() if s.use is None))
            what = "which shares itself" if spec.use in components else f"which does not exist{hint}"
            report((name, "use"), f"shares the weights of {spec.use!r}, {what}")
            good = False
    return good


def _shares_fit(nodes: Mapping[str, NodePlan], report: ReportProblem) -> bool:
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
    context: Mapping[str, object],
    report: ReportProblem,
) -> NodePlan | None:
    kinds = part.entry.schema.inferred
    joins = "flat_features" in kinds.values()
    try:
        known = {
            kind: context[kind] if kind in context else _infer(kind, inputs, spec.arguments)
            for kind in dict.fromkeys(kinds.values())
        }
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
    if spec.call and (joins or len(sources) != len(spec.in_keys)):
        what = "joins what it reads" if joins else "reads an edge that stands for several"
        report((spec.name, "args"), f"{part.type!r} {what}: name every edge in in_keys")
        return None
    try:
        measure = _measure(part, tuple(inputs), spec.arguments, joins, _freeze(known), spec.call)
    except Exception as error:
        found = _show_edges(sources, inputs)
        report((spec.name,), f"{part.type!r} cannot take {found}: {reason_of(error)}{_nhwc_hint(inputs)}")
        return None
    if len(measure.outputs) != len(spec.out_keys):
        report(
            (spec.name, "out_keys"),
            f"{len(spec.out_keys)} names for {len(measure.outputs)} outputs of {part.type!r}",
        )
        return None
    node = NodePlan(spec, part, sources, tuple(inputs), known, joins, measure, measure)
    return _plan_wrappers(node, report) if spec.wrappers else node


def _plan_wrappers(node: NodePlan, report: ReportProblem) -> NodePlan | None:
    """The node with the measure of what its wrappers make of it."""
    spec = node.spec
    problems = {index: _wrapper_problem(wrapper, spec) for index, wrapper in enumerate(spec.wrappers)}
    for index, problem in problems.items():
        if problem:
            report((spec.name, "wrappers", index), problem)
    if any(problems.values()):
        return None
    try:
        measure = _measure_wrapped(
            spec, node.part, node.sources, node.inputs, node.joins, _freeze(node.context), node.inner
        )
    except WrapperError as error:
        report((spec.name, "wrappers", error.index), str(error).split("\n", 1)[0])
        return None
    except Exception as error:
        report((spec.name, "wrappers"), f"around {node.part.type!r} they fail: {reason_of(error)}")
        return None
    if node.role and measure.outputs != node.inner.outputs:
        shapes = [out.shape for out in (*node.inner.outputs, *measure.outputs)]
        report((spec.name, "wrappers"), f"they change what a head gives from {shapes[0]} to {shapes[-1]}")
        return None
    return replace(node, measure=measure)


def _wrapper_problem(wrapper: PartSpec, spec: ComponentSpec) -> str | None:
    if wrapper.stated():
        names = ", ".join(map(repr, wrapper.stated()))
        return f"{names} of {wrapper.type!r} follows from the component it wraps: leave it out"
    if spec.use is not None and wrapper.entry.traits.get("owns_weights"):
        return f"{wrapper.type!r} is about weights, and these are those of {spec.use!r}: wrap that one"
    return None


def _infer(kind: str, inputs: Sequence[TensorSpec], arguments: Sequence[str] | None = None) -> object:
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
    if kind == "named_specs":
        names: Sequence[str | None] = arguments or [None] * len(inputs)
        return tuple(zip(names, inputs, strict=True))
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
    known: tuple[tuple[str, object], ...],
    call: Call | None = None,
) -> Measure:
    """What one row costs, of a part whatever its size: what it repeats is multiplied."""

    def measure(few: PartSpec, given: Mapping[str, Any]) -> Measure:
        return measure_built(few, inputs, arguments, joins, _freeze(given), call)

    return per_row(multiplied(part, dict(known), measure))


@lru_cache(maxsize=4096)
def measure_built(
    part: PartSpec,
    inputs: tuple[TensorSpec, ...],
    arguments: tuple[str, ...] | None,
    joins: bool,
    known: tuple[tuple[str, Any], ...],
    call: Call | None,
) -> Measure:
    """The measure of `PLAN_BATCH` rows, of the part as it stands: it is built and run without memory."""
    with torch.device("meta"), Budget():
        module = part.build(**dict(known))
        tensors = [torch.empty((PLAN_BATCH, *spec.shape), dtype=spec.dtype) for spec in inputs]
    if joins:
        tensors = [torch.empty((PLAN_BATCH, sum(s.features for s in inputs)), device="meta")]
    aux: dict[str, Tensor] = {}
    reports = takes_aux(module)
    sink = {"aux": aux} if reports else {}
    named = dict(zip(arguments, tensors, strict=True)) if arguments else {}
    state: dict[str, Tensor] = {}
    with torch.no_grad(), torch.device("meta"):
        if has_memory(module):
            if call:
                raise ValueError("it has memory, and is given tensors alone: write in_keys")
            state = module.initial_state(PLAN_BATCH)
            tensors = [*tensors, state]  # type: ignore[list-item]
        with Cost() as cost:
            if call:
                args, kwargs = call.arguments(tensors)
                result = module(*args, **kwargs, **sink)
            else:
                result = module(**named, **sink) if named else module(*tensors, **sink)
    if state:
        result, after = result
        check_state(state, after)
    results = result if isinstance(result, tuple | list) else (result,)
    return measured(module, results, state, cost, reports, aux)


@lru_cache(maxsize=1024)
def _measure_wrapped(
    spec: ComponentSpec,
    part: PartSpec,
    sources: tuple[str, ...],
    inputs: tuple[TensorSpec, ...],
    joins: bool,
    known: tuple[tuple[str, object], ...],
    inner: Measure,
) -> Measure:
    """As `_measure`, but of the whole component, called with a mapping in training mode."""

    def measure(few: PartSpec, given: Mapping[str, Any]) -> Measure:
        bare = measure_built(few, inputs, spec.arguments, joins, _freeze(given), spec.call)
        node = NodePlan(spec, few, sources, inputs, given, joins, bare, bare)
        return _measure_component(node, inner.takes_aux)

    return per_row(multiplied(part, dict(known), measure))


def _measure_component(node: NodePlan, takes_aux: bool) -> Measure:
    spec, sources, inputs = node.spec, node.sources, node.inputs
    with torch.device("meta"), Budget():
        module = node.part.build(**node.context)
        if spec.freeze:
            module.requires_grad_(False)
        component = node.component(module)
        aux: dict[str, Tensor] = {}
        mapping: dict[Any, Any] = {AUX: aux}
        for source, given in zip(sources, inputs, strict=True):
            write_key(mapping, as_key(source), torch.empty((PLAN_BATCH, *given.shape), dtype=given.dtype))
        state = component.initial_state(PLAN_BATCH)
        mapping.update({f"{spec.name}/{name}": tensor for name, tensor in state.items()})
    with torch.no_grad(), torch.device("meta"), Cost() as cost:
        written = component(mapping)
    results = [read_key(written, as_key(key)) for key in spec.out_keys]
    check_state(state, {name: written[f"{spec.name}/{name}"] for name in state})
    return measured(component, results, state, cost, takes_aux, aux)


def _freeze(known: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    return tuple(sorted((k, tuple(v) if isinstance(v, list) else v) for k, v in known.items()))


def _plain(value: object) -> object:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _show_edges(sources: Sequence[str], inputs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{name} {tuple(spec.shape)}" for name, spec in zip(sources, inputs, strict=True))


def _nhwc_hint(inputs: Sequence[TensorSpec]) -> str:
    for spec in inputs:
        if len(spec.shape) == 3 and spec.shape[-1] in (1, 3, 4) and min(spec.shape[:2]) > spec.shape[-1]:
            return " (looks like NHWC; expected channels first)"
    return ""
