"""From a plan to modules: allocate, initialise by role, freeze; each component from a random stream of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from policysmith.graph.component import Component
from policysmith.graph.plan import NodePlan, Plan
from policysmith.ops.init import initialize
from policysmith.ops.random_stream import random_stream

__all__ = ["as_components", "base_seed", "build_modules", "component_seed", "drawing"]


def component_seed(seed: int, name: str) -> int:
    """The seed of one component's stream: a hash of (seed, name), the same in every process."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def build_modules(plan: Plan, seed: int | None, *, initialized: bool = True) -> dict[str, nn.Module]:
    """One initialised module a component, in the order they run; `use` gives the shared module again.

    `seed=None` takes a base from torch's global generator; that generator is otherwise neither read nor written, so
    other threads may draw and build meanwhile.
    `initialized=False` skips the initialisation by role, for weights that are to be loaded anyway.
    """
    base = base_seed(seed)
    modules: dict[str, nn.Module] = {}
    for node in plan.nodes:
        if node.spec.use is None:
            with drawing(base, node.name):
                modules[node.name] = _build(node, initialized)
    for node in plan.nodes:
        if node.spec.use is not None:
            modules[node.name] = modules[node.spec.use]
    return {node.name: modules[node.name] for node in plan.nodes}


def as_components(plan: Plan, modules: Mapping[str, nn.Module], seed: int | None) -> dict[str, Component]:
    """The modules of a plan as components in their wrappers; what those draw comes from streams of their own."""
    if not any(node.spec.wrappers for node in plan.nodes):
        return {node.name: node.component(modules[node.name]) for node in plan.nodes}
    base = base_seed(seed)
    components: dict[str, Component] = {}
    for node in plan.nodes:
        with drawing(base, f"{node.name}/wrappers"):
            components[node.name] = node.component(modules[node.name])
    return components


def base_seed(seed: int | None) -> int:
    """What the seeds of components follow from: the seed, or a number from torch's global generator.

    On the meta device there is nothing to draw for, and nothing is drawn.
    """
    if seed is None and torch.get_default_device().type == "meta":
        return 0
    return int(torch.randint(2**62, ()).item()) if seed is None else seed


def drawing(seed: int | None, name: str) -> AbstractContextManager[object]:
    """Inside, this thread draws from the stream of `name`; from torch's global generator if `seed` is None."""
    return nullcontext() if seed is None else random_stream(component_seed(seed, name))


def _build(node: NodePlan, initialized: bool) -> nn.Module:
    module: nn.Module = node.part.build(**node.context)
    init = node.spec.init
    if not initialized:
        pass
    elif init is None:
        initialize(module)
    elif (initializer := init.build()) is not None:
        initialize(module, initializer)
    if node.spec.freeze:
        module.requires_grad_(False)
    return module
