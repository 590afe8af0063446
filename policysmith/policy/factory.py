"""From a checked model and two spaces to a live ActorCritic.

load → decode → wire → plan → build; every problem of a stage is reported before anything is allocated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from gymnasium import spaces
from pydantic import ValidationError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from policysmith.compile.container import ComponentContainer
from policysmith.compile.step import Step, steps_for
from policysmith.config.limits import Limits
from policysmith.config.options import failures
from policysmith.errors import ConfigError, Problem
from policysmith.graph.assemble import as_components, base_seed, build_modules
from policysmith.graph.plan import Plan, make_plan
from policysmith.graph.spec import ComponentSpec, decode_components
from policysmith.policy.actions import ActionDistribution
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.observations import Observations
from policysmith.policy.spaces import space_bytes
from policysmith.registry import PartSpec, Registry

__all__ = ["Blueprint", "build_policy", "make_blueprint"]

Report = Callable[[Sequence[str | int], str], None]
BATCH_COUPLED = (
    "batch normalisation makes a row's action depend on the other rows of its batch: use layer or group "
    "normalisation, or consent with batch_coupled: true on {}"
)
T = TypeVar("T")
ROLES = {"policy": "action_head", "value": "value_head"}


class Blueprint:
    """A planned policy: everything known, nothing allocated."""

    def __init__(self, plan: Plan, observations: Observations, actions: ActionDistribution) -> None:
        self.plan, self.observations, self.actions = plan, observations, actions

    def build(
        self, seed: int | None, config: Mapping[str, object] | None = None, *, initialized: bool = True
    ) -> ActorCritic:
        """Allocate and initialise; `seed=None` draws from torch's global generator."""
        base = base_seed(seed)
        modules = build_modules(self.plan, base, initialized=initialized)
        components = ComponentContainer(as_components(self.plan, modules, base))
        return ActorCritic(self.plan, components, self.observations, self.actions, config)


def make_blueprint(
    model: PartSpec,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    report: Report,
    registry: Registry,
    observation: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> Blueprint | None:
    """Plan a model for two spaces; problems go to `report(path, message)` and make the result None.

    `observation` holds the options of the section of that name: `exclude`, `scale`, `normalize`. A space or a model
    that is larger than `limits` is a problem (default: this machine's memory).
    """
    limits = limits or Limits()
    if not _spaces_fit(observation_space, action_space, limits, report):
        return None
    observations = _attempt(("observation",), report, lambda: Observations(observation_space, **(observation or {})))
    leaves = tuple(observations.inputs) if observations is not None else ()
    components = _components(model, registry, leaves, report)
    if components is None:
        return None

    def report_component(path: Sequence[str | int], message: str) -> None:
        report(("model", *_section_of(model, path), *path), message)

    heads = _heads(components, report)
    actions = _attempt(("model",), report, lambda: _actions(action_space, heads.get("policy")))
    good = _consents(model, components, report_component) and len(heads) == len(ROLES)
    if observations is None or actions is None:
        return None
    encoded = observations.encode(components, registry)
    known = {"action_layout": actions.layout, "num_actions": _number_of_actions(action_space)}
    plan = make_plan(encoded, observations.inputs, report_component, context=known, limits=limits)
    if plan is None or not good or not _all_used(plan, components, report_component):
        return None
    if not _nested_consents(model, plan, report_component):
        return None
    return Blueprint(plan, observations, actions)


def build_policy(
    model: PartSpec,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    registry: Registry,
    *,
    seed: int | None = None,
    observation: Mapping[str, Any] | None = None,
    config: Mapping[str, object] | None = None,
    limits: Limits | None = None,
) -> ActorCritic:
    """Plan and build in one go; raises `ConfigError` with every problem, also for a policy larger than `limits`."""
    problems: list[Problem] = []

    def report(path: Sequence[str | int], message: str) -> None:
        problems.append(Problem(".".join(map(str, path)), message))

    blueprint = make_blueprint(model, observation_space, action_space, report, registry, observation, limits)
    if blueprint is None:
        raise ConfigError(problems)
    return blueprint.build(seed, config)


def is_batch_coupled(part: PartSpec) -> bool:
    """Whether the type, or one nested in its options, lets rows of a batch influence each other."""
    nested = [option for option in part.options.values() if isinstance(option, PartSpec)]
    return bool(part.entry.traits.get("batch_coupled")) or any(map(is_batch_coupled, nested))


def _components(
    model: PartSpec, registry: Registry, leaves: tuple[str, ...], report: Report
) -> Mapping[str, ComponentSpec] | None:
    if inspect.isclass(model.entry.target):
        report(
            ("model", "type"), f"{model.type!r} is a class: model_factory builds it; a file takes recipes and graphs"
        )
        return None
    try:
        return decode_components(model.build(observation_leaves=leaves), registry).components
    except ValidationError as error:
        for place, message in failures(error):
            report(("model", *place), message)
        return None


def _section_of(model: PartSpec, path: Sequence[str | int]) -> tuple[str, ...]:
    """The option of the model that holds the component a path begins with, where one does."""
    section = model.entry.traits.get("components", "components" if model.type == "graph" else None)
    found = model.options.get(section) if section else None
    return (section,) if model.type == "graph" or (found and path and path[0] in found) else ()


def _heads(components: Mapping[str, ComponentSpec], report: Report) -> dict[str, ComponentSpec]:
    heads: dict[str, ComponentSpec] = {}
    for role, usual in ROLES.items():
        found = [s for s in components.values() if s.part is not None and s.part.entry.traits.get("role") == role]
        if len(found) == 1:
            heads[role] = found[0]
        elif not found:
            report(("model", "components"), f"no component has the role {role}: add one of type {usual!r}")
        else:
            names = ", ".join(repr(s.name) for s in found)
            report(("model", "components"), f"{names} all have the role {role}; there must be exactly one {usual!r}")
    return heads


def _actions(space: spaces.Space, head: ComponentSpec | None) -> ActionDistribution:
    options = head.part.options if head is not None and head.part is not None else {}
    dependent = options.get("std") == "dependent"
    bounds = {name: options.get(name) for name in ("log_std_min", "log_std_max")}
    return ActionDistribution(space, options.get("squash", False), dependent, options.get("initial_std", 1.0), **bounds)


def _spaces_fit(observation_space: spaces.Space, action_space: spaces.Space, limits: Limits, report: Report) -> bool:
    """Whether a row of observations and one of actions has room; what has none is reported."""
    good = True
    for name, space in (("observation", observation_space), ("action", action_space)):
        if problem := limits.space_problem(space_bytes(space), "one row"):
            report((name,) if name == "observation" else ("model",), f"the {name} space {problem}")
            good = False
    return good


def _number_of_actions(space: spaces.Space) -> int | None:
    """How many actions a Discrete space has; None for other spaces."""
    return int(space.n) if isinstance(space, spaces.Discrete) else None


def _consents(model: PartSpec, components: Mapping[str, ComponentSpec], report: Report) -> bool:
    """Whether the model takes responsibility for types that couple the rows of a batch, if it has any."""
    if model.entry.traits.get("batch_coupled") or model.options.get("batch_coupled"):
        return True
    coupled = [spec for spec in components.values() if spec.part is not None and is_batch_coupled(spec.part)]
    for spec in coupled:
        report((spec.name,), BATCH_COUPLED.format("a model of type graph"))
    return not coupled


def _nested_consents(model: PartSpec, plan: Plan, report: Report) -> bool:
    """As `_consents`, for components whose types say nothing of what is in them: they are made, without memory."""
    if model.entry.traits.get("batch_coupled") or model.options.get("batch_coupled"):
        return True
    good = True
    for node in plan.nodes:
        if node.part.entry.traits.get("nested") and node.spec.use is None:
            with torch.device("meta"):
                module = node.part.build(**node.context)
            if any(isinstance(layer, _BatchNorm) for layer in module.modules()):
                report((node.name,), BATCH_COUPLED.format("the model"))
                good = False
    return good


def _all_used(plan: Plan, stated: Mapping[str, ComponentSpec], report: Report) -> bool:
    steps = [Step(nn.ModuleDict(), n.name, n.sources, n.spec.out_keys) for n in plan.nodes]
    ends = [n.spec.out_keys[0] for n in plan.nodes if n.role]
    used = {step.name for step in steps_for(steps, ends)}
    used |= {stated[name].use for name in used if name in stated and stated[name].use}  # type: ignore[misc]
    unused = [name for name in stated if name not in used]
    for name in unused:
        report((name,), f"no head depends on {name!r}: connect it or remove it")
    return not unused


def _attempt(path: Sequence[str], report: Report, make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ConfigError as error:
        for problem in error.problems:
            report((*path, problem.path) if problem.path else path, problem.message)
        return None
