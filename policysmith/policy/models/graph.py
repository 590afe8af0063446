"""The general model: components wired by their keys."""

from __future__ import annotations

from typing import Annotated

from policysmith.graph.spec import Components, GraphSpec
from policysmith.registry import register

__all__ = ["graph"]


@register("graph", slot="model")
def graph(components: Annotated[GraphSpec, Components()], batch_coupled: bool = False) -> GraphSpec:
    """Any network of components with one `action_head` and one `value_head`.

    `batch_coupled: true` consents to types that let the rows of a batch influence each other (batch normalisation).

    Args:
        components: The components by name.
        batch_coupled: Consents to parts whose rows depend on each other, such as batch normalisation.
    """
    return components
