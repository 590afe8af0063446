"""Layers of the legacy component system inside a container, so that an agent can be moved piece by piece.

In: a layer with `_name`, `_sources`, `setup(source_components)` and `_forward(td)`. Out: a component with keys.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from tensordict import TensorDictBase
from torch import nn

from policysmith.errors import WiringError
from policysmith.graph.component import Component, read_key, write_key
from policysmith.graph.module_view import ViewMixin, share_state

__all__ = ["LegacyComponent"]

NAME, SOURCES, SHAPE = "_name", "_sources", "_out_tensor_shape"


class LegacyComponent(ViewMixin, Component):
    """An unconverted layer as an opaque component: it reads what its sources write, and writes under its name.

    The layer runs on a mapping of its own that holds its inputs and nothing else. So it runs on every call, and never
    runs another layer: order is the container's. `state_dict` is the layer's own. Swap it for a converted component
    with `replace_component(name, …)`, and back with what that returned.

    Args:
        layer: it is set up here unless it has been.
        sources: for a layer that is not set up, what each of its sources gives, by name: a layer, a LegacyComponent,
            or the shape of one row for a source that is converted already.
        reads: keys that it takes besides its sources: `x` for an observation, `state` for a memory. One that is not
            there when it runs is absent for the layer, too.
        writes: keys that it writes besides its name: `state`, or `_BxTT_`.

    Raises:
        WiringError: the layer lacks what a legacy layer has, or is not set up and `sources` don't tell its inputs.
    """

    def __init__(
        self,
        layer: nn.Module,
        sources: Mapping[str, Any] | None = None,
        reads: Sequence[str] = (),
        writes: Sequence[str] = (),
    ) -> None:
        _check(layer)
        names = _source_names(layer)
        _set_up(layer, names, sources)
        super().__init__([*names, *reads], [getattr(layer, NAME), *writes])
        # Merge layers have only a forward, which runs the sources first: this copy's do nothing.
        self._runs = "_forward" if callable(getattr(layer, "_forward", None)) else "forward"
        share_state(self, layer if self._runs == "_forward" else _alone(layer, names))
        self._optional = frozenset(reads)

    def forward(self, mapping: Any) -> Any:
        """Run the layer on its inputs and write what it gives; returns the mapping it was given."""
        td = _Inputs(getattr(self.module, NAME))
        for key in self.in_keys:
            if key not in self._optional or key in mapping.keys():  # noqa: SIM118 - a TensorDict is no container
                td[key] = read_key(mapping, key)
        getattr(self.module, self._runs)(td)
        for key in self.out_keys:
            if key not in td:
                raise WiringError(f"the legacy layer {td.name!r} did not write {key!r}, one of its out_keys")
            _write(mapping, key, td[key])
        return mapping

    @property
    def out_tensor_shape(self) -> list[int]:
        """The shape of one row that the layer gives."""
        return list(getattr(self.module, SHAPE))


class _Inputs(dict[Any, Any]):
    """What a layer sees of the mapping."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __missing__(self, key: Any) -> Any:
        raise KeyError(
            f"the legacy layer {self.name!r} reads {key!r}, which is none of its sources or not there: "
            "name it in reads="
        )


class _Done(nn.Module):
    """A source as a layer sees it: its shape is known, and it has run."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self._out_tensor_shape = list(shape)

    def forward(self, td: Any) -> Any:
        """Nothing is left to do."""
        return td


def _check(layer: Any) -> None:
    lacks = [name for name in (NAME, SOURCES) if not hasattr(layer, name)]
    if not isinstance(layer, nn.Module) or lacks:
        what = f"lacks {' and '.join(lacks)}" if lacks else "is no module"
        raise WiringError(f"{type(layer).__name__} {what}: a legacy layer is a module with a name and sources")


def _source_names(layer: Any) -> list[str]:
    """Each source once, whether written as a text or as a mapping with a name."""
    written = getattr(layer, SOURCES) or []
    names = [source if isinstance(source, str) else source["name"] for source in written]
    return list(dict.fromkeys(names))


def _set_up(layer: Any, names: Sequence[str], sources: Mapping[str, Any] | None) -> None:
    if _is_ready(layer):
        return
    missing = [name for name in names if name not in (sources or {})]
    if missing:
        raise WiringError(
            f"the legacy layer {getattr(layer, NAME)!r} is not set up: tell in sources= what it reads as "
            f"{', '.join(map(repr, missing))}: a layer, or the shape of one row"
        )
    layer.setup({name: _Done(_shape((sources or {})[name])) for name in names} or None)


def _is_ready(layer: Any) -> bool:
    for name in ("ready", "_ready"):
        if isinstance(found := getattr(layer, name, None), bool):
            return found
    return hasattr(layer, SHAPE)


def _shape(source: Any) -> list[int]:
    found = source.out_tensor_shape if isinstance(source, LegacyComponent) else getattr(source, SHAPE, source)
    return list(found)


def _alone(layer: Any, names: Sequence[str]) -> Any:
    """The layer, with the same weights, beside sources that have run."""
    alone = copy.copy(layer)
    alone.__dict__["_source_components"] = {name: _Done(()) for name in names}
    return alone


def _write(mapping: Any, key: Any, value: Any) -> None:
    if isinstance(mapping, TensorDictBase) and not hasattr(value, "shape"):
        mapping.set_non_tensor(key, value)
    elif isinstance(mapping, MutableMapping | TensorDictBase):
        write_key(mapping, key, value)
