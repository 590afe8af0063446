"""A random stream of one thread: what torch draws on the CPU inside comes from a generator of its own.

In: a seed. Out: the numbers that torch's global generator would give after `manual_seed(seed)`. That generator, which
all threads share, is neither read nor written, so threads that draw at the same time do not disturb each other.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from inspect import signature
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

__all__ = ["DRAWING", "random_stream"]

_FILLING = {"bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_"}
_NAMES = {
    *("_fused_dropout", "_sample_dirichlet", "_standard_gamma", "alpha_dropout", "bernoulli", "binomial", "cauchy"),
    *("dropout", "exponential", "feature_alpha_dropout", "feature_dropout", "geometric", "gru", "log_normal", "lstm"),
    *("multinomial", "native_dropout", "normal", "poisson", "rand", "rand_like", "randint", "randint_like", "randn"),
    *("randn_like", "random", "randperm", "rnn_relu", "rnn_tanh", "rrelu", "rrelu_with_noise", "uniform"),
    *("normal_functional", "rrelu_with_noise_functional", "scaled_dot_product_attention"),
}
DRAWING = frozenset(_NAMES | {f"{name}_" for name in _NAMES})
"""The names under which torch's functions in C draw; those written in Python are looked into while they run."""

_DRAWLESS = {"torch._tensor", "torch.functional"}  # modules of functions in Python that draw nothing
_ACTIVE = threading.local()
_GLOBAL = threading.RLock()  # of operations that take no generator: the global one stands in for ours meanwhile


@contextmanager
def random_stream(seed: int) -> Iterator[None]:
    """Inside, this thread draws from a stream of its own; devices but the CPU draw as ever. The innermost counts.

    A mode over functions is cheap (1 µs a call) but sees no draw within one; a mode over operations sees every draw, at
    20 µs an operation. So the first looks at all calls, and hands those that may draw to the second.
    """
    generator = torch.Generator().manual_seed(seed)
    mode: _Functions | None = getattr(_ACTIVE, "mode", None)
    if mode is None:
        with _Functions(generator) as _ACTIVE.mode:
            try:
                yield
            finally:
                _ACTIVE.mode = None
        return
    outer, mode.generator = mode.generator, generator
    try:
        yield
    finally:
        mode.generator = outer


class _Functions(TorchFunctionMode):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call, so that what is drawn is ours."""
        if not _may_draw(func):
            return func(*args, **kwargs) if kwargs else func(*args)
        given = kwargs or {}
        if _takes_generator(func, len(args)) and (filled := _first_tensor(args, given)) is not None:
            if filled.device.type == "cpu" and given.get("generator") is None:
                return func(*args, **{**given, "generator": self.generator})
            return func(*args, **given)
        with _operations(self):
            return func(*args, **given)


@lru_cache(maxsize=4096)
def _may_draw(func: Callable[..., Any]) -> bool:
    if isinstance(func, FunctionType):
        return func.__module__ not in _DRAWLESS
    return getattr(func, "__name__", "") in DRAWING


def _takes_generator(func: Callable[..., Any], given: int) -> bool:
    """Whether `generator=` may follow so many arguments: initialisers in Python, and methods that fill a tensor."""
    place = _generator_place(func)
    return place is not None and given <= place


@lru_cache(maxsize=4096)
def _generator_place(func: Callable[..., Any]) -> int | None:
    if isinstance(func, FunctionType):
        names = list(signature(func).parameters)
        return names.index("generator") if "generator" in names else None
    return sys.maxsize if func.__name__ in _FILLING else None  # there it is a keyword only


class _Drawing:
    """Hands the generator to every operation on the CPU that draws."""

    functions: _Functions

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, or the form of it that takes a generator."""
        given = kwargs or {}
        if not _draws(func) or given.get("generator") is not None or not _on_cpu(args, given):
            return func(*args, **given)
        form = _with_generator(func)
        if form is not None:
            return form(*args, **{**given, "generator": self.functions.generator})
        with _standing_in(self.functions.generator):
            return func(*args, **given)


class _Operations(_Drawing, TorchDispatchMode):
    """As a mode. Its one method is inherited: one of its own would be wrapped, and have torch's compiler imported."""

    def __init__(self, functions: _Functions) -> None:
        super().__init__()
        self.functions = functions


@contextmanager
def _operations(functions: _Functions) -> Iterator[None]:
    """The mode, for this thread alone: to enter it by `with` writes flags of the process, and stops compiled code."""
    _push_mode(_Operations(functions))
    try:
        yield
    finally:
        _pop_mode()


@lru_cache(maxsize=4096)
def _draws(func: OpOverload) -> bool:
    return "generator" in _arguments(func) or torch.Tag.nondeterministic_seeded in func.tags


@lru_cache(maxsize=4096)
def _with_generator(func: OpOverload) -> OpOverload | None:
    """The operation, or the form of it, that takes a generator; None if there is none."""
    if "generator" in _arguments(func):
        return func
    packet, wanted = func.overloadpacket, _arguments(func) | {"generator"}
    return next((form for name in packet.overloads() if _arguments(form := getattr(packet, name)) == wanted), None)


def _arguments(func: OpOverload) -> set[str]:
    return {argument.name for argument in func._schema.arguments}


def _on_cpu(args: Sequence[Any], given: Mapping[str, Any]) -> bool:
    """Where the operation draws: on the device it is told, else on that of its tensors, else on torch's default."""
    device = given.get("device")
    if device is not None:
        return torch.device(device).type == "cpu"
    first = _first_tensor(args, given)
    return first is None or first.device.type == "cpu"


def _first_tensor(args: Sequence[Any], given: Mapping[str, Any]) -> Tensor | None:
    return next((value for value in (*args, *given.values()) if isinstance(value, Tensor)), None)


@contextmanager
def _standing_in(generator: torch.Generator) -> Iterator[None]:
    """The global generator in the state of ours, for an operation that takes none; one stream at a time."""
    with _GLOBAL:
        kept = torch.default_generator.get_state()
        torch.default_generator.set_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(torch.default_generator.get_state())
            torch.default_generator.set_state(kept)
