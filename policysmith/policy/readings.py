"""How each leaf of an observation is read: as numbers, pixels, categories, or codes; decided once and stored.

In: the space of a leaf, what the section `observation` says of it, and what is known of the environment. Out: a
`Reading`, whose options are those of the encoder that the policy places before the leaf's readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from gymnasium import spaces

from policysmith.errors import CheckpointError
from policysmith.types import ImageLayout

__all__ = ["LAYOUTS", "Known", "Reading", "reading_of", "reading_of_0_1", "stored_reading"]

Kind = Literal["numbers", "image", "categories", "codes"]
LAYOUTS: tuple[str, ...] = get_args(ImageLayout)
CHANNELS = (1, 3, 4)  # what tells the channel axis of a stack of images from its other axes


@dataclass(frozen=True)
class Known:
    """What is known of a leaf by its environment: codes for each channel or a divisor, and by what it is known."""

    by: str
    codes: tuple[int, ...] | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Reading:
    """How a leaf is read: its numbers divided by `scale`, the axes of an image, and how many codes a channel has.

    `why` says what decided it.
    """

    kind: Kind
    scale: float = 1.0
    layout: str | None = None
    codes: tuple[int, ...] | None = None
    why: str = ""

    def encoder(self, is_float: bool) -> dict[str, Any] | None:
        """The component that does it; None where the leaf is read as it is."""
        if self.kind == "categories":
            return {"type": "one_hot"}
        if self.kind == "codes":
            return {"type": "encode_codes", "layout": self.layout, "sizes": list(self.codes or ())}
        if self.kind == "image":
            return {"type": "encode_image", "layout": self.layout, "scale": self.scale}
        return None if is_float and self.scale == 1.0 else {"type": "to_float", "scale": self.scale}

    def encode(self) -> dict[str, Any]:
        """As plain data, to be stored."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items() if v is not None}

    @property
    def sentence(self) -> str:
        """What `check` and `show` say of it."""
        how = {
            "numbers": "numbers" if self.scale == 1.0 else f"numbers, divided by {self.scale:g}",
            "image": f"image, axes {self.layout}, "
            + ("as it is" if self.scale == 1.0 else f"divided by {self.scale:g}"),
            "categories": "categories, one-hot",
            "codes": f"codes, axes {self.layout}, one-hot by channel ({' + '.join(map(str, self.codes or ()))})",
        }[self.kind]
        return f"{how} ({self.why})" if self.why else how


def reading_of(
    space: spaces.Space[Any],
    scale: float | None = None,
    layout: str | None = None,
    codes: Sequence[int] | None = None,
    known: Known | None = None,
) -> Reading:
    """How a leaf is read; what the file says comes before what is known, and that before what the space tells.

    Bytes are divided by the largest that the space allows, whatever their rank. Raises ValueError for a layout or
    codes that do not fit the leaf.
    """
    if not isinstance(space, spaces.Box):
        whole = isinstance(space, spaces.MultiBinary)
        return Reading("numbers", scale or 1.0) if whole else Reading("categories")
    _check(space, layout, codes)
    if codes is not None:
        return Reading("codes", layout=layout or _code_layout(space.shape), codes=tuple(codes), why="observation.codes")
    if known is not None and scale is None and layout is None:
        if known.codes is not None:
            return Reading("codes", layout=_code_layout(space.shape), codes=known.codes, why=known.by)
        axes = _image_layout(space.shape)
        return Reading("image" if axes else "numbers", known.scale or 1.0, axes, why=known.by)
    bytes_ = space.dtype == np.uint8
    usual = max(1.0, float(space.high.max(initial=1))) if bytes_ else 1.0
    axes = layout or (_image_layout(space.shape) if bytes_ else None)
    why = "observation.layout" if layout else "bytes" if bytes_ else ""
    return Reading("image" if axes else "numbers", float(scale or usual), axes, why=why)


def reading_of_0_1(space: spaces.Space[Any], scale: float | None = None) -> Reading:
    """How version 0.1.0 read a leaf, whose policies do not say so: bytes of two or three axes alone were images."""
    if not isinstance(space, spaces.Box):
        return reading_of(space, scale)
    if space.dtype == np.uint8 and len(space.shape) in (2, 3):
        return Reading("image", float(scale or 255.0), _image_layout(space.shape), why="version 0.1.0")
    return Reading("numbers", float(scale or 1.0), why="version 0.1.0")


def stored_reading(data: object, space: spaces.Space[Any]) -> Reading:
    """What `encode` gave for a leaf of this space; raises `CheckpointError` for anything else."""
    if not isinstance(data, Mapping):
        raise CheckpointError(f"the reading of an observation is {data!r}; it is a mapping")
    kind, scale, layout, codes = (data.get(key) for key in ("kind", "scale", "layout", "codes"))
    try:
        _check_stored(space, kind, scale, layout, codes)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the reading of an observation is {dict(data)!r}: {error}") from None
    found = None if codes is None else tuple(codes)
    return Reading(cast(Kind, kind), float(cast(float, scale)), layout, found, str(data.get("why", "")))


def _check_stored(space: spaces.Space[Any], kind: object, scale: Any, layout: Any, codes: Any) -> None:
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise ValueError("scale is a number above 0")
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"layout is one of {', '.join(LAYOUTS)}")
    if codes is not None and not (isinstance(codes, list) and all(type(n) is int and n > 0 for n in codes)):
        raise ValueError("codes are whole numbers above 0")
    whole = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    wanted = "categories" if whole else "codes" if codes is not None else "image" if layout else "numbers"
    if kind != wanted:
        raise ValueError(f"with this layout and these codes the kind is {wanted}")
    if isinstance(space, spaces.Box):
        _check(space, layout, codes)


def _check(space: spaces.Box, layout: str | None, codes: Sequence[int] | None) -> None:
    shape = f"a leaf of shape {tuple(space.shape)}"
    if layout is not None and len(layout) != len(space.shape):
        raise ValueError(f"layout {layout!r} names {len(layout)} axes, for {shape}")
    if codes is None:
        return
    if np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"codes are whole numbers, and this leaf has {space.dtype}")
    if layout not in (None, "hwc", "thwc") or len(space.shape) not in (3, 4):
        raise ValueError(f"codes are those of the last axis (layout hwc or thwc), for {shape}")
    if len(codes) != space.shape[-1]:
        raise ValueError(f"{len(codes)} numbers of codes, for {space.shape[-1]} channels of {shape}")


def _code_layout(shape: Sequence[int]) -> str:
    return "hwc" if len(shape) == 3 else "thwc"


def _image_layout(shape: Sequence[int]) -> str | None:
    """The axes of bytes that are an image or a stack of them; None for other ranks.

    The channel axis is the one that differs from the two equal ones; else the smaller of the outer two. Of a stack it
    is the one of 1, 3 or 4 channels.
    """
    if len(shape) == 2:
        return "hw"
    if len(shape) == 3:
        first, middle, last = shape
        if first == middle or middle == last:
            return "hwc" if first == middle else "chw"
        return "hwc" if last <= first else "chw"
    if len(shape) == 4:
        return "thwc" if shape[3] in CHANNELS else "tchw" if shape[1] in CHANNELS else None
    return None
