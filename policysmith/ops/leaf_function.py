"""Leaf functions: a tracer does not look inside them, so emitted code calls each as one.

In: a pure function of tensors that branches on shapes or makes tensors of its own. Out: the same for its callers, and
one call for a tracer of `torch.fx`, by torch's protocol for functions that others override.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["leaf_function"]

P = ParamSpec("P")
R = TypeVar("R")


def leaf_function(function: Callable[P, R]) -> Callable[P, R]:
    """Make it a leaf for tracers. A tensor must be among its positional arguments; several results are indexed."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if has_torch_function(args):
            result: R = handle_torch_function(call, args, *args, **kwargs)
            return result
        return function(*args, **kwargs)

    return call
