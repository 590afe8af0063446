"""Which forwards may dissolve into emitted code.

Tracing sees tensors only. What else a forward does (writing, drawing, asking for modes and types) must be read off
its bytecode; in doubt a module stays a call, which is always right.
"""

from __future__ import annotations

import dis
import inspect
import types
from functools import cache

from torch import Tensor, nn

__all__ = ["may_inline"]

# Their options (a probability) are changed on live modules, and the code would keep the old ones.
_KEPT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_LISTS = (nn.ParameterList, nn.ParameterDict)
_WRITES = {"STORE_ATTR", "DELETE_ATTR", "STORE_SUBSCR", "DELETE_SUBSCR", "STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF"}
_MUTATORS = {"append", "extend", "insert", "pop", "popleft", "appendleft", "update", "setdefault", "clear", "item"}
_MODES = {
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "is_tensor",
    "no_grad",
    "enable_grad",
    "inference_mode",
    "autocast",
}
_BUILTINS = {"range", "zip", "enumerate", "reversed", "tuple", "list", "float", "int", "sum", "min", "max", "super"}


def may_inline(module: nn.Module) -> bool:
    """Whether tracing through the module can be trusted: its class, and what it holds."""
    if isinstance(module, _KEPT) or "forward" in module.__dict__ or not _trusted(type(module)):  # type: ignore[arg-type]
        return False
    if any(isinstance(child, _LISTS) for child in module._modules.values()):
        return False
    return not any(isinstance(value, Tensor) for value in module.__dict__.values())


@cache
def _trusted(kind: type) -> bool:
    """Whether no method of the class (torch's and ours aside, which the laws test) does more than compute."""
    return all(
        _pure(function)
        for owner in kind.__mro__
        if not owner.__module__.startswith(("torch.", "policysmith.", "builtins", "typing"))
        for name, function in vars(owner).items()
        if inspect.isfunction(function) and name not in ("__init__", "extra_repr")
    )


def _pure(function: types.FunctionType) -> bool:
    code = function.__code__
    if any(step.opname in _WRITES or _in_place(step) for step in dis.get_instructions(code)):
        return False
    names = set(code.co_names)
    if names & (_MUTATORS | _MODES) or set(code.co_freevars) - {"__class__"}:
        return False
    return all(_known(name, function) for name in _globals_of(code))


def _in_place(step: dis.Instruction) -> bool:
    """`x += y` on a local name, which overwrites a tensor where plain `x = x + y` does not."""
    return step.opname == "BINARY_OP" and step.argrepr.endswith("=")


def _globals_of(code: types.CodeType) -> set[str]:
    return {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}


def _known(name: str, function: types.FunctionType) -> bool:
    """Globals that only compute: torch and math, our own functions, plain numbers, a few builtins."""
    if name not in function.__globals__:
        return name in _BUILTINS
    value = function.__globals__[name]
    if isinstance(value, int | float | str | bool | types.NoneType):
        return True
    home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "") or ""
    return home == "math" or home.split(".")[0] in ("torch", "policysmith")
