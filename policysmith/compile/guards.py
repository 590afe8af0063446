"""What makes code stale that was made for modules: hooks, and another object in a place.

In: modules and the dictionaries of hooks. Out: whether calling a module does more than its forward, and tests that
emitted code makes before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules import module as torch_module
from torch.utils.hooks import RemovableHandle

__all__ = ["GLOBAL_HOOKS", "HOOKS", "HookCheck", "HooksSeen", "Watch", "has_hooks"]

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS: tuple[dict[int, Any], ...] = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling the module does more than its forward: its own hooks, or torch's process-wide ones."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own) or any(GLOBAL_HOOKS)


class HooksSeen(NamedTuple):
    """Read before a trace: torch's counter of hook handles, and the hook dictionaries that were empty and must stay so.

    A hook that another thread registers while we trace has then raised the counter, and is found at the first call.
    """

    counter: int
    empty: Sequence[Mapping[Any, Any]]

    @classmethod
    def of(cls, dictionaries: Sequence[Mapping[Any, Any]]) -> HooksSeen:
        """What is to be seen now in these dictionaries of hooks."""
        counter = RemovableHandle.next_id
        return cls(counter, [hooks for hooks in dictionaries if not hooks])


class Watch(NamedTuple):
    """A place that must keep holding the very same object."""

    mapping: Mapping[str, Any]
    key: str
    expected: Any


class HookCheck:
    """Whether any watched hook dictionary has filled up since; called only when a hook was registered somewhere.

    Or whether a module's class has changed: who changes one registers a hook, if only to remove it again.
    """

    def __init__(
        self, dictionaries: Sequence[Mapping[Any, Any]], classes: Sequence[tuple[nn.Module, type]], counter: int
    ) -> None:
        self._dictionaries = list({id(d): d for d in dictionaries}.values())
        self._classes = classes
        self.seen = [counter]

    def __call__(self) -> bool:
        """Whether the code is stale."""
        counter = RemovableHandle.next_id  # read first: a hook that comes while we look is looked for again
        if any(self._dictionaries) or any(type(module) is not kind for module, kind in self._classes):
            return True
        self.seen[0] = counter
        return False
