"""From a plan to modules: allocate, initialise by role, freeze; each component from a random stream of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from policysmith.graph.component import Component
from policysmith.graph.plan import NodePlan, Plan
from policysmith.ops.init import initialize

__all__ = ["as_components", "base_seed", "build_modules", "component_seed", "drawing"]


def component_seed(seed: int, name: str) -> int:
    """The seed of one component's stream: a hash of (seed, name), the same in every process."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def build_modules(plan: Plan, seed: int | None, *, initialized: bool = True) -> dict[str, nn.Module]:
    """One initialised module a component, in the order they run; `use` gives the shared module again.

    `seed=None` takes a base from torch's global generator; that generator is otherwise left as it was.
    `initialized=False` skips the initialisation by role, for weights that are to be loaded anyway.
    """
    base = base_seed(seed)
    modules: dict[str, nn.Module] = {}
    with _restored(torch.default_generator) as generator:
        for node in plan.nodes:
            if node.spec.use is None:
                generator.manual_seed(component_seed(base, node.name))
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
    with _restored(torch.default_generator) as generator:
        for node in plan.nodes:
            generator.manual_seed(component_seed(base, f"{node.name}/wrappers"))
            components[node.name] = node.component(modules[node.name])
    return components


def base_seed(seed: int | None) -> int:
    """What the seeds of components follow from: the seed, or a number from torch's global generator.

    On the meta device there is nothing to draw for, and nothing is drawn.
    """
    if seed is None and torch.get_default_device().type == "meta":
        return 0
    return int(torch.randint(2**62, ()).item()) if seed is None else seed


@contextmanager
def drawing(seed: int | None, name: str) -> Iterator[None]:
    """Draw from the stream of `name`, and leave torch's global generator as it was; from that one if `seed` is None."""
    if seed is None:
        yield
        return
    with _restored(torch.default_generator) as generator:
        generator.manual_seed(component_seed(seed, name))
        yield


@contextmanager
def _restored(generator: torch.Generator) -> Iterator[torch.Generator]:
    state = generator.get_state()
    try:
        yield generator
    finally:
        generator.set_state(state)


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
