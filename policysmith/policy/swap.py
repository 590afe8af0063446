"""Hot-swap: another component in a live policy's place, checked against the plan before anything is touched.

In: a running policy and a component's replacement, as a description or a module. Out: a `Swap`, which can be undone.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from policysmith.compile.exclusive import exclusive
from policysmith.config.options import failures
from policysmith.errors import WiringError, did_you_mean
from policysmith.graph.assemble import as_components, base_seed, build_modules
from policysmith.graph.component import Component, Key, TensorMapping, read_key, write_key
from policysmith.graph.plan import NodePlan, Plan, TensorSpec, WrapperError, make_plan
from policysmith.graph.resize import keep_overlap
from policysmith.graph.spec import ComponentSpec, decode_components
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.observations import Observations
from policysmith.policy.parameter_exchange import SHARDED, Follower, ParameterExchange, followers_of, hand_over
from policysmith.registry import PartSpec, Registry, default_registry

__all__ = ["Swap", "Swapping"]

log = logging.getLogger(__name__)
PROBE_ROWS = 2
KEYS = ("in_keys", "out_keys")
Replacement = str | Mapping[str, Any] | PartSpec | nn.Module

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Swap:
    """One exchange of components: what stood there, what stands there, and the plan and configuration with each."""

    names: tuple[str, ...]
    before: dict[str, nn.Module]
    after: dict[str, nn.Module]
    plans: tuple[Plan, Plan]
    configs: tuple[dict[str, Any], dict[str, Any]]
    undo: ExitStack = field(default_factory=ExitStack)

    def watch(self, rollback: Callable[[], None], undo: ExitStack) -> None:
        """Roll back on the first output that is not finite, and answer that very call by the component before."""
        for name, component in self.after.items():
            given: dict[str, TensorMapping] = {}

            def keep(_: nn.Module, arguments: tuple[TensorMapping], given: dict[str, TensorMapping] = given) -> None:
                given.update(mapping=dict(arguments[0]))

            def check(
                module: Any,
                _: object,
                mapping: TensorMapping,
                name: str = name,
                given: dict[str, TensorMapping] = given,
            ) -> object:
                if all(read_key(mapping, key).isfinite().all() for key in module.out_keys):
                    return None
                log.warning("%r gave an output that is not finite: rolled back to the component before", name)
                rollback()
                return self.before[name](given["mapping"])

            undo.callback(component.register_forward_pre_hook(keep).remove)
            undo.callback(component.register_forward_hook(check).remove)


def one_at_a_time(change: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method of a policy that changes its components: one thread at a time, and none makes code meanwhile."""

    @wraps(change)
    def changed(policy: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with exclusive(policy.components):
            return change(policy, *args, **kwargs)

    return changed


class Swapping:
    """What lets a policy exchange its components while it runs; a base of `ActorCritic`."""

    plan: Plan
    config: dict[str, Any]
    components: Any
    observations: Observations
    actions: ActionDistribution
    _swap: Swap | None = None

    @one_at_a_time
    def replace_component(
        self,
        name: str,
        new: Replacement,
        *,
        optimizer: object = None,
        followers: Sequence[Follower] = (),
        keep_weights: bool = False,
        resize: bool = False,
        guard: bool = False,
        seed: int | None = None,
        registry: Registry | None = None,
    ) -> Swap:
        """Put `new` (a type's name, a `{type: …}` mapping, a `PartSpec`, or a module) in a component's place.

        Keys, shapes, dtypes and state are checked against the plan first; `WiringError` lists every problem. A swap
        happens whole or not at all: whatever is raised, policy, optimisers and followers are as they were. Calls under
        way end with the old component, the next ones run the new.

        `optimizer` (one of torch's or ours, or several) forgets the parameters that leave and takes the new ones, each
        in the group and under the rule of what it replaces; the others keep their moments, and groups stay as many, so
        schedulers go on. `followers` hold parameters besides (`WeightAverage`, `Replicated`); those that follow one of
        our optimisers need not be named. Where several processes train, all swap at the same time. `keep_weights`
        starts the new component from the old one's overlapping weights; `resize` rebuilds, in the same way, what reads
        an edge that changes its shape. `rollback()` undoes the latest swap; with `guard` the first output that is not
        finite does so by itself (every output is looked at, so the component is no longer inlined).
        """
        swap = prepare_swap(
            self, name, new, registry or default_registry, keep_weights=keep_weights, resize=resize, seed=seed
        )
        if guard and len(swap.names) > 1:
            names = ", ".join(map(repr, swap.names))
            raise WiringError(f"guard watches a single component, and this swap makes {names} anew: roll back by hand")
        optimizers = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer] * (optimizer is not None)
        self._commit(swap, optimizers, followers_of(optimizers, followers), guard)
        self._swap = swap
        return swap

    @one_at_a_time
    def rollback(self) -> None:
        """Undo the latest swap: component, plan, configuration and optimiser as they were. Raises `WiringError`."""
        if self._swap is None:
            raise WiringError("there is no swap to roll back")
        swap, self._swap = self._swap, None
        swap.undo.close()

    def _commit(self, swap: Swap, optimizers: Sequence[object], followers: Sequence[Follower], guard: bool) -> None:
        """Exchange everywhere; an exception at any step undoes those before it, the latest first."""
        with ExitStack() as undo:
            undo.callback(self._put, swap.before, swap.plans[0], swap.configs[0])
            self._put(swap.after, swap.plans[1], swap.configs[1])
            if optimizers or followers:
                exchange = ParameterExchange(self, swap.before, swap.after, guard)  # type: ignore[arg-type]
                hand_over(exchange, optimizers, undo)
                for follower in followers:
                    follower.exchange_parameters(exchange, undo)
            if guard:
                swap.watch(self.rollback, undo)
            swap.undo = undo.pop_all()

    def _put(self, components: Mapping[str, nn.Module], plan: Plan, config: dict[str, Any]) -> None:
        for name, component in components.items():
            self.components[name] = component
        self.plan, self.config = plan, config
        self._replan()

    def _replan(self) -> None:
        """Take up a new plan with the same edges."""
        raise NotImplementedError


def prepare_swap(
    policy: Swapping,
    name: str,
    new: Replacement,
    registry: Registry,
    *,
    keep_weights: bool,
    resize: bool,
    seed: int | None,
) -> Swap:
    """Everything that a swap needs, made and checked; the policy is not touched. Raises `WiringError`."""
    plan, components, config = policy.plan, policy.components, policy.config
    if any(isinstance(p, DTensor) for p in components.parameters()):
        raise WiringError(SHARDED)
    if name not in components:
        hint = did_you_mean(name, components)
        raise WiringError(f"no component {name!r} to replace{hint}; there are: {', '.join(components)}")
    if isinstance(new, nn.Module):
        return _of_module(plan, components, config, plan.node(name), new)
    specs = _specs(config, registry, tuple(policy.observations.inputs))
    if name not in specs:
        raise WiringError(f"{name!r} encodes an observation: it follows from the observation's space, and stays")
    changed = {**specs, name: _spec(specs[name], new, registry)}
    problems: list[str] = []
    planned = make_plan(
        policy.observations.encode(changed, registry),
        plan.inputs,
        lambda path, message: problems.append(f"{'.'.join(map(str, path))}: {message}"),
        context={"action_layout": policy.actions.layout},
    )
    if planned is None:
        raise WiringError("\n".join(problems))
    _check_role(plan.node(name), planned.node(name))
    rebuilt = _rebuilt(plan, planned, name, resize)
    part, base = replace(planned, nodes=tuple(n for n in planned.nodes if n.name in rebuilt)), base_seed(seed)
    made = build_modules(part, base)
    anchor = next(itertools.chain(components[name].parameters(), components.parameters()), None)
    if anchor is not None:
        for module in made.values():
            module.to(device=anchor.device, dtype=anchor.dtype if anchor.is_floating_point() else None)
    after = as_components(part, made, base)
    for other, component in after.items():
        if keep_weights or other != name:
            keep_overlap(component, components[other])
        component.train(components.training)  # not a component's own flag: one that is frozen never trains
    described = {**config, "model": _model(config, changed)}
    before = {n: components[n] for n in rebuilt}
    return Swap(tuple(rebuilt), before, dict(after), (plan, planned), (dict(config), described))


def _of_module(
    plan: Plan, components: Mapping[str, nn.Module], config: Mapping[str, Any], node: NodePlan, new: nn.Module
) -> Swap:
    """A module made elsewhere: what it gives is tried out on two rows, in evaluation mode and without gradient."""
    try:
        component = new if isinstance(new, Component) else node.component(new)
    except WrapperError as error:
        raise WiringError(f"{node.name}: {error}") from error
    if bool(component.initial_state(1)) is not bool(node.measure.state):
        raise WiringError(f"{node.name}: what remembers and what does not can't stand for each other in a live policy")
    problems = _key_problems(component, node)
    problems = problems or _probe_problems(component, node)
    if problems:
        raise WiringError("\n".join(f"{node.name}: {problem}" for problem in problems))
    component.train(components.training)  # type: ignore[attr-defined]
    before: dict[str, nn.Module] = {node.name: components[node.name]}
    described = {**config, "replaced": sorted({*config.get("replaced", ()), node.name})}
    return Swap((node.name,), before, {node.name: component}, (plan, plan), (dict(config), described))


def _key_problems(component: Component, node: NodePlan) -> list[str]:
    found = [
        [".".join(k) if isinstance(k, tuple) else k for k in keys] for keys in (component.in_keys, component.out_keys)
    ]
    wanted = [list(node.sources), list(node.spec.out_keys)]
    return [
        f"{kind} are {have}, expected {want}"
        for kind, have, want in zip(KEYS, found, wanted, strict=True)
        if have != want
    ]


@torch.no_grad()
def _probe_problems(component: Component, node: NodePlan) -> list[str]:
    first = next(component.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    mapping: dict[Key, Any] = {}
    for key, spec in zip(component.in_keys, node.inputs, strict=True):
        write_key(mapping, key, torch.zeros((PROBE_ROWS, *spec.shape), dtype=spec.dtype, device=device))
    was_training = component.training
    component.eval()
    try:
        component(mapping)
    except Exception as error:
        return [f"cannot take {_inputs(node)}: {str(error).splitlines()[0]}"]
    finally:
        component.train(was_training)
    wanted = {key: spec for key, spec in zip(node.spec.out_keys, node.measure.outputs, strict=True)}
    wanted |= {f"{node.name}/{key}": spec for key, spec in node.measure.state}
    problems = []
    for key, spec in wanted.items():
        tensor = mapping.get(key)
        if not isinstance(tensor, Tensor):
            problems.append(f"does not write {key!r}")
        elif (tuple(tensor.shape), tensor.dtype) != ((PROBE_ROWS, *spec.shape), spec.dtype):
            problems.append(f"gives {key} {tuple(tensor.shape[1:])} {tensor.dtype}, expected {spec.shape} {spec.dtype}")
    return problems


def _specs(config: Mapping[str, Any], registry: Registry, leaves: tuple[str, ...]) -> dict[str, ComponentSpec]:
    if config.get("replaced"):
        names = ", ".join(map(repr, config["replaced"]))
        raise WiringError(
            f"{names} was replaced by a module that no configuration describes: swap modules only, or roll back"
        )
    if "model" not in config:
        raise WiringError("the policy was built without a configuration: swap a module instead of a description")
    recipe = registry.decode("model", config["model"])
    return dict(decode_components(recipe.build(observation_leaves=leaves), registry).components)


def _spec(old: ComponentSpec, new: Replacement, registry: Registry) -> ComponentSpec:
    """The new component's spec: keys and wrappers stay unless stated, and stated keys must be the same."""
    if isinstance(new, PartSpec):
        return replace(old, part=new, use=None, init=None)
    if isinstance(new, str):
        new = {"type": new}
    if not isinstance(new, Mapping):
        raise WiringError(f"{old.name}: expected a module, a type, or a mapping with 'type', found {new!r}")
    kept = {key: value for key, value in old.encode().items() if key in (*KEYS, "args", "wrappers")}
    try:
        spec = decode_components({old.name: {**kept, **new}}, registry).components[old.name]
    except ValidationError as error:
        raise WiringError(
            "\n".join(f"{'.'.join(map(str, place))}: {message}" for place, message in failures(error))
        ) from None
    for kind in KEYS:
        if getattr(spec, kind) != getattr(old, kind):
            raise WiringError(
                f"{old.name}: {kind} are {list(getattr(spec, kind))}, expected {list(getattr(old, kind))}: "
                "a live policy keeps its wiring"
            )
    return spec


def _check_role(old: NodePlan, new: NodePlan) -> None:
    """A head stays a head, and draws from the same distribution: trainers hold on to it."""
    if old.role != new.role:
        raise WiringError(f"{new.name}: {new.part.type!r} has the role {new.role}, expected {old.role}")
    fixed = ["std", "squash", "log_std_min", "log_std_max"]
    if old.part.options.get("std") == "dependent":
        fixed.append("initial_std")  # of the distribution; an independent one is a weight of the head
    for option in fixed:
        was, would = old.part.options.get(option), new.part.options.get(option)
        if old.role == "policy" and was != would:
            raise WiringError(f"{new.name}.{option}: a live policy keeps its distribution: {was!r}, found {would!r}")


def _rebuilt(before: Plan, after: Plan, name: str, resize: bool) -> list[str]:
    """The components to make anew: the one, those sharing its weights, and with `resize` those that no longer fit."""
    problems: list[str] = []
    sharing = [node.name for node in after.nodes if node.spec.use == name]
    names = [name, *sharing]
    for node in after.nodes:
        old = before.node(node.name)
        if node.measure.state != old.measure.state:
            found, kept = _shapes(node.measure.state), _shapes(old.measure.state)
            problems.append(f"{node.name}: its state {found} would not fit the episodes under way, which keep {kept}")
        elif node.name not in names and (node.context != old.context or node.inputs != old.inputs):
            if not resize:
                reads = f"was built for {_inputs(old)} and would read {_inputs(node)}"
                problems.append(f"{node.name}: {reads}: resize=True rebuilds it with its overlapping weights")
            names.append(node.name)
    if problems:
        raise WiringError("\n".join(problems))
    return names


def _inputs(node: NodePlan) -> str:
    return ", ".join(f"{name} {spec.shape}" for name, spec in zip(node.sources, node.inputs, strict=True))


def _shapes(state: Iterable[tuple[str, TensorSpec]]) -> str:
    return ", ".join(f"{key} {spec.shape}" for key, spec in state) or "nothing"


def _model(config: Mapping[str, Any], specs: Mapping[str, ComponentSpec]) -> dict[str, Any]:
    """The model as a graph of components: what it is now, whatever recipe it came from."""
    coupled = config["model"].get("batch_coupled")
    consent = coupled if coupled is not None else config["model"].get("type") in ("resnet", "se_resnet", "dummy")
    components = {name: spec.encode() for name, spec in specs.items()}
    return {"type": "graph", "components": components, **({"batch_coupled": True} if consent else {})}
