"""A module that is another view of one: same parameters, buffers and children, no prefix in `state_dict`.

Adapters and wrappers derive from it, so bare and wrapped checkpoints interchange.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import nn

__all__ = ["share_state"]

# What makes up a module's state and how it is stored; a view holds these very objects.
_SHARED = (
    "_parameters",
    "_buffers",
    "_modules",
    "_non_persistent_buffers_set",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def share_state(view: nn.Module, module: nn.Module) -> None:
    """Make `view` hold the parameter, buffer and child dictionaries of `module`, and `module` beside them."""
    for name in _SHARED:
        view.__dict__[name] = module.__dict__[name]
    view.__dict__["module"] = module  # not a child: it would add a prefix and be visited twice
    view.training = module.training


class ViewMixin(nn.Module):
    """What a view hands on to the module behind it, since that class may store or move its state in its own way."""

    module: nn.Module

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and in the module behind."""
        self.training = mode
        self.module.train(mode)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self.module._apply(fn, recurse)
        return self

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.module._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.module._load_from_state_dict(*args, **kwargs)
