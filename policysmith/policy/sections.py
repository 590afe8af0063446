"""The sections of an experiment file that a policy follows from: its model, its spaces, how it is observed and run.

In: a file's mappings, checked. Out: plain values; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ValidationError

from policysmith.config.limits import Limits
from policysmith.config.options import OptionSchema, Slot, error_at, failures, located
from policysmith.errors import ConfigError, Problem
from policysmith.registry import register
from policysmith.types import Count, ImageLayout, Name, Positive

__all__ = ["Execution", "Model", "ObservationOptions", "Spaces", "decode_execution"]

register("limits", slot="section", after="store")(Limits)  # below the registry, where planning finds it


@register("spaces", slot="section")
@dataclass(frozen=True)
class Spaces:
    """The spaces of a policy without an environment: where there is one, or spaces are passed, those hold instead.

    Args:
        observation: What the policy sees.
        action: What it does.
    """

    observation: Annotated[Any, Slot("space")]
    action: Annotated[Any, Slot("space")]


@register("observation", slot="section", after="spaces", always=True)
@dataclass(frozen=True)
class ObservationOptions:
    """What of the observation the policy reads, and how; `policysmith check` says what was decided for each leaf.

    `scale` is the divisor of a leaf's numbers, `layout` the axes of an image or a stack of them (t time, h height, w
    width, c channels), `codes` how many codes each channel of a grid has, which are then read one-hot.

    Args:
        exclude: The leaves that the policy does not read.
        scale: What the numbers of a leaf are divided by, by the leaf's name.
        normalize: Whether numbers are brought to mean 0 and deviation 1 as they come in; or the leaves that are.
        layout: The axes of an image or a stack of them, by the leaf's name: t time, h height, w width, c channels.
        codes: How many codes each channel of a grid has, by the leaf's name; they are read one-hot.
    """

    exclude: list[Name] = field(default_factory=list)
    scale: dict[str, Positive] = field(default_factory=dict)
    normalize: bool | list[Name] = False
    layout: dict[str, ImageLayout] = field(default_factory=dict)
    codes: dict[str, list[Count]] = field(default_factory=dict)


@register("model", slot="section", after="observation", part="model", required=True)
class Model:
    """The actor-critic network: a model by name, or its type and options."""


@register("execution", slot="section", after="model", always=True, short="executor")
@dataclass(frozen=True)
class Execution:
    """How the policy's calls run: precision, compilation and memory layout. No setting changes what is stored.

    `amp` computes the network in bfloat16 and gives float32; `compile` hands each call to `torch.compile`; `auto`
    measures at the first use on a device and takes what is faster. `channels_last` lays out convolutions as N, H, W, C.
    The executor `parallel` runs components that do not need each other side by side, where it measures faster. A text
    in place of the section names the executor: `execution: parallel`. With `strict_masks` a row without a legal action
    is an error.

    Args:
        amp: Whether the network is computed in bfloat16; auto measures which is faster.
        compile: Whether calls go through torch.compile; auto measures which is faster.
        compile_mode: The mode of torch.compile.
        compile_dynamic: Whether sizes may change without compiling anew; null lets torch find out.
        compile_backend: What torch.compile compiles with.
        channels_last: Whether convolutions are laid out as N, H, W, C.
        executor: Whether components that do not need each other run side by side.
        strict_masks: Whether a row without a legal action is an error.
    """

    amp: bool | Literal["auto"] = False
    compile: bool | Literal["auto"] = False
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    compile_dynamic: bool | None = None
    compile_backend: Literal["inductor", "aot_eager", "eager"] = "inductor"
    channels_last: bool = False
    executor: Literal["sequential", "parallel"] = "sequential"
    strict_masks: bool = False

    def __post_init__(self) -> None:
        if self.compile_mode != "default" and self.compile_backend != "inductor":
            message = f"the backend {self.compile_backend!r} has no modes: leave it out, or take the backend 'inductor'"
            raise located("execution", [error_at(("compile_mode",), message, self.compile_mode)])


def decode_execution(settings: Mapping[str, Any]) -> Execution:
    """The section `execution` alone; raises `ConfigError` with every problem."""
    try:
        return Execution(**OptionSchema(Execution, "execution").decode(settings, {}))
    except ValidationError as error:
        raise ConfigError([Problem(".".join(map(str, path)), message) for path, message in failures(error)]) from None
