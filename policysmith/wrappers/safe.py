"""SafeModule: says at once, and by name, what is wrong with the inputs and outputs of a component.

In: a mapping. Out: the same one, actions inside their bounds; ValueErrors for what is missing, misshapen, NaN or Inf.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Len
from torch import Tensor, nn

from policysmith.errors import ShapeError, WiringError, did_you_mean
from policysmith.graph.component import Key, as_key, read_key, write_key
from policysmith.graph.measure import TensorSpec
from policysmith.registry import register
from policysmith.types import Count, Positive
from policysmith.wrappers.wrapper import Inner, Wrapper, last_part

__all__ = ["SafeModule"]

log = logging.getLogger(__name__)

Spec = Sequence[int | None] | TensorSpec
Specs = Mapping[Any, Spec] | None
_SPECS = dict[str, Annotated[list[Count | None], Len(1)]] | None
_BOUNDS = Annotated[list[float], Len(2)] | None


@register("safe", slot="wrapper", annotations={"input_specs": _SPECS, "output_specs": _SPECS, "action_bounds": _BOUNDS})
class SafeModule(Wrapper):
    """Checks what goes into a component and what comes out, and keeps actions inside their bounds.

    Raised in the call itself, as ValueErrors: an input that is missing, a shape that differs from its spec, NaN or
    Inf (`nan_check`). On an accelerator NaN and Inf stop the device later, without waiting for it here, unless
    `synchronize`. A spec is a shape whose first entry stands for the batch, of any number of dimensions, and where None
    is free; or a `TensorSpec`. `action_bounds` (low, high) clamps, out of place, each output named `action` or
    `…_action`. Outputs named `value` or `…_value` beyond ±`value_limit` are told to the log.

    Args:
        input_specs: The shape of each input; null for an axis of any length.
        output_specs: The shape of each output; null for an axis of any length.
        action_bounds: The smallest and the largest action; what lies outside is set to the bound.
        nan_check: Whether a number that is not finite is an error.
        synchronize: Whether an accelerator is waited for, so that the error comes in the call that caused it.
        value_limit: The largest absolute value of a prediction; null has none.
    """

    transparent = True

    def __init__(
        self,
        module: Inner,
        input_specs: Specs = None,
        output_specs: Specs = None,
        action_bounds: Sequence[Any] | None = None,
        nan_check: bool = True,
        synchronize: bool = False,
        value_limit: Positive | None = 1000.0,
    ) -> None:
        super().__init__(module)
        self.input_specs = _specs("input_specs", input_specs, self.in_keys)
        self.output_specs = _specs("output_specs", output_specs, self.out_keys)
        self.action_bounds = _bounds(action_bounds)
        self.nan_check, self.synchronize, self.value_limit = nan_check, synchronize, value_limit
        self._actions = [key for key in self.out_keys if _is_named(key, "action")]
        self._values = [key for key in self.out_keys if _is_named(key, "value")]
        self._extremes = _Extremes()
        self.__dict__ |= {"enter": _Call(self._enter), "leave": _Call(self._leave)}  # no children: those are shared
        if self.action_bounds and not self._actions and not _is_planned(module):
            log.warning("action_bounds: none of %s is 'action' or ends in '_action': nothing to clamp", self.out_keys)

    def forward(self, mapping: Any) -> Any:
        """Check the inputs, call what stands inside, check and bound the outputs."""
        batch_ndim = self._check("input", self._read("input", mapping), self.input_specs)
        result = self.module(mapping)
        found = self._read("output", result)
        self._check("output", found, self.output_specs, batch_ndim)
        for key, tensor in self._bounded(found).items():
            write_key(result, key, tensor)
        return result

    def metrics(self) -> dict[str, float]:
        """How many calls gave extreme values, by output, beside what the wrappers inside have found."""
        return {**super().metrics(), **{f"extreme/{_show(key)}": float(n) for key, n in self._extremes.counts.items()}}

    def _enter(self, *inputs: Tensor) -> None:
        """The checks of a program's inputs."""
        self._check("input", dict(zip(self.in_keys, inputs, strict=True)), self.input_specs)

    def _leave(self, result: Any) -> Any:
        """The checks of what a component computed; the same, in bounds."""
        single = isinstance(result, Tensor)
        found = dict(zip(self.out_keys, (result,) if single else result, strict=True))
        self._check("output", found, self.output_specs)
        found |= self._bounded(found)
        return found[self.out_keys[0]] if single else tuple(found.values())

    def _read(self, kind: str, mapping: Any) -> dict[Key, Tensor]:
        """The tensors at the keys of one kind."""
        found: dict[Key, Tensor] = {}
        for key in self.in_keys if kind == "input" else self.out_keys:
            try:
                tensor = read_key(mapping, key)
            except KeyError as error:
                what = "Missing required input key" if kind == "input" else "The module gave no expected output"
                raise WiringError(f"{what}: {_show(key)!r}; {str(error.args[0]).partition('; ')[2]}") from None
            if isinstance(tensor, Tensor):
                found[key] = tensor
        return found

    def _check(
        self, kind: str, tensors: Mapping[Key, Tensor], specs: Mapping[Key, Spec], batch_ndim: int | None = None
    ) -> int | None:
        """Raise ValueError for what is wrong; returns the number of batch dimensions, where a spec tells."""
        for key, tensor in tensors.items():
            if key in specs:
                batch_ndim = _check_shape(kind, key, tensor, specs[key], batch_ndim)
            if self.nan_check:
                self._check_finite(kind, key, tensor)
        return batch_ndim

    def _bounded(self, found: Mapping[Key, Tensor]) -> dict[Key, Tensor]:
        """The actions among the outputs, in bounds; extreme values go to the log."""
        if self.value_limit is not None:
            for key in self._values:
                if key in found:
                    self._watch(key, found[key], self.value_limit)
        if self.action_bounds is None:
            return {}
        return {key: _clamp(found[key], *self.action_bounds) for key in self._actions if key in found}

    def _check_finite(self, kind: str, key: Key, tensor: Tensor) -> None:
        x = tensor.detach()
        if not (x.is_floating_point() or x.is_complex()) or x.is_meta or torch.compiler.is_exporting():
            return
        if torch.compiler.is_compiling():
            torch._assert_async(x.isfinite().all(), f"NaN or Inf in {kind} {_show(key)!r}")
        elif torch._C._are_functorch_transforms_active():
            return  # a transform's tensors have no values to look at
        elif x.device.type != "cpu" and not self.synchronize:
            torch._assert_async(x.isfinite().all(), f"NaN or Inf in {kind} {_show(key)!r}")
        elif not x.sum().isfinite() and not x.isfinite().all():  # one reduction; a large sum alone is no fault
            raise ValueError(f"{_what_is_wrong(x)} detected in {kind} {_show(key)!r} {tuple(x.shape)}")

    def _watch(self, key: Key, tensor: Tensor, limit: float) -> None:
        x = tensor.detach()
        here = x.device.type == "cpu" or (self.synchronize and not x.is_meta)
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or not here or not x.numel():
            return
        low, high = (float(bound) for bound in x.aminmax())
        if max(-low, high) > limit and self._extremes.tell(key):
            log.warning("extreme values in %r: %.4g to %.4g, beyond ±%g", _show(key), low, high, limit)


class _Call(nn.Module):
    """A method as a module, which compiled code keeps as a call whatever it does."""

    def __init__(self, method: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = method


class _Extremes:
    """Counts the calls with extreme values; tells of the 1st, 2nd, 4th, 8th … of each output, or the log would fill."""

    def __init__(self) -> None:
        self.counts: dict[Key, int] = {}

    def tell(self, key: Key) -> bool:
        count = self.counts[key] = self.counts.get(key, 0) + 1
        return count & (count - 1) == 0


def _specs(name: str, given: Specs, keys: Sequence[Key]) -> dict[Key, Spec]:
    specs = {as_key(key): spec for key, spec in (given or {}).items()}
    for key in specs:
        if key not in keys:
            raise WiringError(
                f"{name}: {_show(key)!r} is none of the keys {', '.join(map(_show, keys))}"
                f"{did_you_mean(_show(key), map(_show, keys))}"
            )
    return specs


def _bounds(given: Sequence[Any] | None) -> tuple[Any, Any] | None:
    """Two numbers, or two arrays with a bound for each dimension."""
    if given is None:
        return None
    if len(given) != 2:
        raise ValueError(f"action_bounds must be (low, high), found {len(given)} entries: {given}")
    low, high = (b if isinstance(b, int | float) else torch.as_tensor(b) for b in given)
    ordered = low <= high
    if not (bool(ordered.all()) if isinstance(ordered, Tensor) else ordered):
        raise ValueError(f"action_bounds: low {low} lies above high {high}")
    return low, high


def _clamp(x: Tensor, low: Any, high: Any) -> Tensor:
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low, high = (torch.as_tensor(bound, device=x.device) for bound in (low, high))
    return x.clamp(low, high).to(x.dtype)


def _check_shape(kind: str, key: Key, x: Tensor, spec: Spec, batch_ndim: int | None) -> int:
    """The number of batch dimensions; raises `ShapeError` where the event is another, or the batch is."""
    event = spec.shape if isinstance(spec, TensorSpec) else tuple(spec)[1:]
    found = x.dim() - len(event)
    fits = found >= 1 and all(e is None or e == n for e, n in zip(event, x.shape[found:], strict=True))
    if not fits or (batch_ndim is not None and found != batch_ndim):
        expected = ", ".join(["batch", *("any" if n is None else str(n) for n in event)])
        raise ShapeError(f"Shape mismatch for {kind} {_show(key)!r}: expected ({expected}), got {tuple(x.shape)}")
    if isinstance(spec, TensorSpec) and x.dtype != spec.dtype:
        raise ShapeError(f"Type mismatch for {kind} {_show(key)!r}: expected {spec.dtype}, got {x.dtype}")
    return found


def _what_is_wrong(x: Tensor) -> str:
    counts = {"NaN": int(x.isnan().sum()), "Inf": int(x.isinf().sum())}
    found = " and ".join(f"{name} ({count} of {x.numel()} values)" for name, count in counts.items() if count)
    first = tuple((~x.isfinite()).nonzero()[0].tolist())
    return f"{found}, first at {first}"


def _is_named(key: Key, word: str) -> bool:
    """Whether the last part of a key is the word, or ends in it; `_action_` too, as legacy agents call it."""
    name = last_part(key).rstrip("_")
    return name == word or name.endswith(f"_{word}")


def _is_planned(module: nn.Module) -> bool:
    """Whether this is a plan's pass, without weights: what is built after it tells the same."""
    return any(p.is_meta for p in module.parameters())


def _show(key: Key) -> str:
    return key if isinstance(key, str) else ".".join(key)
