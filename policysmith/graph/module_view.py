"""A module that is another view of one: same parameters, buffers and children, no prefix in `state_dict`.

Adapters and wrappers derive from it, so bare and wrapped checkpoints interchange.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

from torch import Tensor, nn

__all__ = ["ViewMixin", "bare", "layers", "share_state"]

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


def layers(module: nn.Module) -> Iterator[nn.Module]:
    """A module and what stands behind it, view by view, down to the one that is no view."""
    yield module
    while isinstance(module, ViewMixin):
        module = module.module
        yield module


def bare(module: nn.Module) -> nn.Module:
    """The module behind every view."""
    *_, last = layers(module)
    return last


class ViewMixin(nn.Module):
    """What a view hands on to the module behind it, since that class may store or move its state in its own way."""

    module: nn.Module

    @property
    def training(self) -> bool:
        """The mode of the module behind, whoever set it."""
        module = self.__dict__.get("module")
        return True if module is None else module.training

    @training.setter
    def training(self, mode: bool) -> None:
        if "module" in self.__dict__:  # torch sets the flag before there is one
            self.module.training = mode

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the module behind, which is this one's too."""
        self.module.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.module._apply(fn, recurse)
        return self

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.module._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.module._load_from_state_dict(*args, **kwargs)
