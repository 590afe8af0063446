"""What every wrapper is: a view around a component that shares its weights and does something besides.

In: a component, or another wrapper. Out: a component with the same keys and the same `state_dict`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any

from tensordict import TensorDictBase
from torch import Tensor, nn

from policysmith.errors import WiringError
from policysmith.graph.component import AUX, Component, Key
from policysmith.graph.module_view import ViewMixin
from policysmith.graph.module_view import share_state as _share_state
from policysmith.ops.balance import add_loss
from policysmith.registry import Infer

__all__ = ["Attachment", "Inner", "Wrapper", "add_report", "attach_all", "last_part", "metrics_of"]

Inner = Annotated[nn.Module, Infer("module")]
"""The component that a wrapper stands around, as an argument that no configuration states."""


class Wrapper(ViewMixin, Component):
    """A component around another one: same keys, same parameters, buffers and children, no prefix in `state_dict`.

    `module` is what it stands around: a `Component`, a wrapper, or any module with `in_keys` and `out_keys` whose
    forward takes a mapping. Raises `WiringError` for anything else. A subclass of a wrapper that overrides `forward` is
    not `transparent` unless it says so.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in vars(cls) and "transparent" not in vars(cls):
            cls.transparent = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not isinstance(module, nn.Module) or not (hasattr(module, "in_keys") and hasattr(module, "out_keys")):
            raise WiringError(
                f"{type(self).__name__} stands around a component; {type(module).__name__} has no in_keys and "
                f"out_keys: use TensorComponent({type(module).__name__}(…), in_keys=[…], out_keys=[…])"
            )
        _share_state(self, module)
        self.in_keys, self.out_keys = list(module.in_keys), list(module.out_keys)  # type: ignore[arg-type]

    def forward(self, mapping: Any) -> Any:
        """What stands inside, called with the same mapping."""
        return self.module(mapping)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Itself, and what lies below the module inside, which may have more than its dictionary of children."""
        memo = set() if memo is None else memo
        if self in memo and remove_duplicate:
            return
        memo.add(self)
        yield prefix, self
        for name, module in self.module.named_modules(memo, prefix, remove_duplicate):
            if name != prefix:
                yield name, module

    def __repr__(self) -> str:
        return f"{type(self).__name__}(\n{textwrap.indent(repr(self.module), '    ')})"

    @property
    def reports(self) -> tuple[str, ...]:  # type: ignore[override]
        """What the components inside add to a mapping's sink."""
        return getattr(self.module, "reports", ())

    def report(self, sink: dict[str, Any]) -> None:
        """Add the losses of this nest that follow from weights alone to a sink."""
        if isinstance(self.module, Wrapper):
            self.module.report(sink)

    @property
    def learner(self) -> Any:
        """What takes statistics inside."""
        return getattr(self.module, "learner", None)

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        """What the component inside remembers before its first step, by name."""
        return self.module.initial_state(batch) if isinstance(self.module, Component) else {}

    def metrics(self) -> dict[str, float]:
        """What the wrappers of this nest have found, as numbers by name."""
        return self.module.metrics() if isinstance(self.module, Wrapper) else {}

    def attach(self, optimizer: Any) -> Attachment:
        """Have the wrappers of this nest do their work after every step of an optimiser, until `remove()`."""
        return self.module.attach(optimizer) if isinstance(self.module, Wrapper) else Attachment()


class Attachment:
    """What `attach` gives: `remove()` ends it, and so does leaving it as a context manager."""

    def __init__(self, removers: Iterable[Callable[[], None]] = ()) -> None:
        self._removers = list(removers)

    def remove(self) -> None:
        """End it; a second time does nothing."""
        while self._removers:
            self._removers.pop()()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def attach_all(components: Iterable[nn.Module], optimizer: Any) -> Attachment:
    """`attach` every wrapper among the components, as trainers do."""
    return Attachment([c.attach(optimizer).remove for c in components if isinstance(c, Wrapper)])


def metrics_of(components: Mapping[str, nn.Module]) -> dict[str, float]:
    """`metrics()` of every wrapper among the components, as `wrappers/<component>/<metric>`."""
    return {
        f"wrappers/{name}/{metric}": value
        for name, component in components.items()
        if isinstance(component, Wrapper)
        for metric, value in component.metrics().items()
    }


def add_report(mapping: Any, result: Any, name: str, value: Tensor) -> None:
    """Add to what is reported under a name: in the mapping's sink where it has one, else in the result itself.

    A TensorDict gets the value expanded to its batch shape.
    """
    sink = mapping.get(AUX) if isinstance(mapping, dict) else None
    if isinstance(sink, dict):
        add_loss(sink, name, value)
    elif isinstance(result, TensorDictBase):
        before = result.get(name, None)
        result.set(name, value.expand(result.batch_size) if before is None else before + value)
    else:
        result[name] = result[name] + value if name in result else value


def last_part(key: Key) -> str:
    """The name at the end of a nested key."""
    return key if isinstance(key, str) else key[-1]
