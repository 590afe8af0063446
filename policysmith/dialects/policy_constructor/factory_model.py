"""One network of a model factory as a component: `{type: factory_model, factory: …, config: {…}, network: name}`.

In: tensors, as the network's forward takes them. Out: what it gives, a tensor or a tuple.
"""

from __future__ import annotations

from typing import Annotated, Any

from torch import nn

from policysmith.compile.model import GraphModel
from policysmith.compile.nested import NamedSpecs, nest
from policysmith.errors import did_you_mean
from policysmith.registry import PartSpec, Slot, part, register

__all__ = ["Factory", "build_networks", "factory_model"]

Factory = Annotated[PartSpec | str, Slot("model_factory")]


def build_networks(factory: Factory, config: dict[str, Any], base_dir: str | None) -> dict[str, nn.Module]:
    """All networks of a factory by name; raises ValueError where it gives something else than modules by name."""
    spec = part("model_factory", factory)
    found = spec.build().build(config, base_dir=base_dir)
    if not isinstance(found, dict) or not found:
        raise ValueError(f"model factory {spec.type!r} gave {found!r}: expected modules by name")
    if wrong := [name for name, module in found.items() if not isinstance(module, nn.Module)]:
        raise ValueError(f"model factory {spec.type!r} gave no module for {', '.join(map(repr, wrong))}")
    return found


@register("factory_model", nested=True)
def factory_model(
    factory: Factory,
    network: str,
    config: dict[str, Any] = {},  # noqa: B006 - parts get their options anew
    base_dir: str | None = None,
    inputs: NamedSpecs = (),
) -> nn.Module:
    """One network that a registered model factory builds from `config`; it keeps the weights it was given there.

    Every network of the factory is built, and one kept: networks that share weights are to be one network.

    Args:
        factory: The registered model factory that makes the network.
        network: Which of the factory's networks this component is.
        config: What the factory is given.
        base_dir: The folder that relative paths in the configuration start from.
    """
    networks = build_networks(factory, config, base_dir)
    if network not in networks:
        hint = did_you_mean(network, networks) or f"; there are: {', '.join(networks)}"
        raise ValueError(f"the factory gives no network {network!r}{hint}")
    module = networks[network]
    if isinstance(module, GraphModel):
        module = nest(module, inputs)
    module.keeps_start = True  # type: ignore[assignment]
    return module
