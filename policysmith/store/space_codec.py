"""Gymnasium spaces become plain data and back: what a stored policy says of its observations and actions.

In: a space. Out: a mapping for JSON, from which the same space is made; bounds without an end are "-inf" and "inf".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from gymnasium import spaces

from policysmith.errors import CheckpointError

__all__ = ["UnreadSpace", "decode_space", "encode_space"]

Data = dict[str, Any]
KINDS = "Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict, Tuple"


class UnreadSpace(spaces.Space[Any]):
    """The place of a leaf that a policy does not read, where its `kind` of space cannot be stored."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnreadSpace) and other.kind == self.kind

    def __repr__(self) -> str:
        return f"UnreadSpace({self.kind})"


def encode_space(space: spaces.Space[Any], left_out: Collection[str] = ()) -> Data:
    """The space as plain data, a subclass as the kind it derives from; raises `CheckpointError` for other kinds.

    Such a kind may stand at the dotted paths `left_out`: its name is stored, and `UnreadSpace` takes its place.
    """
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", **_encode_dict(space, left_out)}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "spaces": [encode_space(s, _below(i, left_out)) for i, s in enumerate(space.spaces)]}
    for kind, (encode, _) in CODECS.items():
        if isinstance(space, kind):
            return {"type": kind.__name__, **encode(space)}
    name = type(space).__name__
    if "" in left_out or isinstance(space, UnreadSpace):
        return {"type": "UnreadSpace", "kind": space.kind if isinstance(space, UnreadSpace) else name}
    raise CheckpointError(
        f"a space of type {name} cannot be stored; exclude it, or wrap the environment so that it has only {KINDS}"
    )


def decode_space(data: Data) -> spaces.Space[Any]:
    """The space that `encode_space` made the data of; raises `CheckpointError` for data that is of no space."""
    try:
        name = data["type"]
        known = {**{kind: decode for kind, (_, decode) in CODECS.items()}, **NESTED}
        decode = next((decode for kind, decode in known.items() if kind.__name__ == name), None)
        if decode is not None:
            return decode(data)
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, OverflowError) as error:
        raise CheckpointError(f"no space can be made of {str(data)[:80]}: {type(error).__name__}: {error}") from None
    raise CheckpointError(f"unknown type of space {name!r}; there are: {KINDS}")


def _encode_box(space: spaces.Box) -> Data:
    return {
        "shape": list(space.shape),
        "dtype": space.dtype.name,
        "low": _encode_bound(space.low, space.bounded_below, "-inf"),
        "high": _encode_bound(space.high, space.bounded_above, "inf"),
    }


def _encode_bound(bound: np.ndarray, bounded: np.ndarray, endless: str) -> Any:
    """One value if all are alike, else nested lists."""
    values = bound.astype(object)  # plain numbers: the floats that they are, and integers of any size
    values[~bounded] = endless
    if values.size and np.all(values == values.flat[0]):
        return values.flat[0]
    return values.tolist()


def _decode_box(data: Data) -> spaces.Box:
    dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
    low, bounded_below = _decode_bound(data["low"], dtype, shape, "-inf")
    high, bounded_above = _decode_bound(data["high"], dtype, shape, "inf")
    space = spaces.Box(low, high, shape, dtype.type)
    space.bounded_below, space.bounded_above = (
        bounded_below,
        bounded_above,
    )  # of integers it sees only that they are extreme
    return space


def _decode_bound(data: Any, dtype: np.dtype, shape: tuple[int, ...], endless: str) -> tuple[np.ndarray, np.ndarray]:
    """The bound, and where it is one."""
    values = np.full(shape, data, object) if not isinstance(data, list) else np.array(data, object).reshape(shape)
    bounded = np.array(values != endless, bool).reshape(shape)
    if not bounded.all():
        extreme = (
            float(endless) if dtype.kind == "f" else getattr(np.iinfo(dtype), "min" if endless == "-inf" else "max")
        )
        values = np.where(bounded, values, extreme)
    return _fitting(values, dtype), bounded


def _fitting(values: Any, dtype: np.dtype) -> np.ndarray:
    """The values in that dtype; raises `ValueError` where it does not hold them."""
    wanted = np.array(values, object)
    with np.errstate(over="ignore"):
        held = wanted.astype(dtype)
    # numpy before 2 wraps 300 to 44 in uint8, and every numpy rounds 1.5 to 1 and makes 1e300 an infinite float32.
    kept = (
        np.isin(held == wanted, True) if dtype.kind in "iub" else np.isfinite(held) | np.isin(wanted, [np.inf, -np.inf])
    )
    if not np.all(kept):
        raise ValueError(f"{wanted[~kept].flat[0]!r} is no value of {dtype.name}")
    return held


def _encode_discrete(space: spaces.Discrete) -> Data:
    return {"n": int(space.n), "start": int(space.start), "dtype": np.dtype(space.dtype).name}


def _decode_discrete(data: Data) -> spaces.Discrete:
    dtype = (
        {} if data["dtype"] == "int64" else {"dtype": np.dtype(data["dtype"]).type}
    )  # not known before gymnasium 1.2
    _fitting([data["n"], data["start"]], np.dtype(data["dtype"]))
    return spaces.Discrete(data["n"], start=data["start"], **dtype)


def _encode_multi_discrete(space: spaces.MultiDiscrete) -> Data:
    return {"nvec": space.nvec.tolist(), "start": space.start.tolist(), "dtype": space.dtype.name}


def _decode_multi_discrete(data: Data) -> spaces.MultiDiscrete:
    dtype = np.dtype(data["dtype"])
    nvec, start = (_fitting(data[key], dtype) for key in ("nvec", "start"))
    return spaces.MultiDiscrete(nvec, dtype=dtype.type, start=start)


def _encode_multi_binary(space: spaces.MultiBinary) -> Data:
    return {"n": list(space.n) if isinstance(space.n, tuple) else int(space.n)}


def _encode_text(space: spaces.Text) -> Data:
    return {"min_length": space.min_length, "max_length": space.max_length, "charset": "".join(space.character_list)}


def _decode_text(data: Data) -> spaces.Text:
    return spaces.Text(data["max_length"], min_length=data["min_length"], charset=data["charset"])


def _below(key: str | int, paths: Collection[str]) -> list[str]:
    """Of dotted paths those that lead to `key` or through it, from there on; the empty path is all that is below."""
    through = [path.removeprefix(f"{key}.") for path in paths if path.startswith(f"{key}.")]
    return [*through, *([""] if "" in paths or str(key) in paths else [])]


def _encode_dict(space: spaces.Dict, left_out: Collection[str]) -> Data:
    for key in space.spaces:
        if not isinstance(key, str | int):
            raise CheckpointError(f"the key {key!r} of a Dict space cannot be stored; make it a text")
    return {"spaces": [[key, encode_space(below, _below(key, left_out))] for key, below in space.spaces.items()]}


def _decode_dict(data: Data) -> spaces.Dict:
    return spaces.Dict([(key, decode_space(below)) for key, below in data["spaces"]])  # pairs keep their order


CODECS: dict[type, tuple[Callable[[Any], Data], Callable[[Data], Any]]] = {
    spaces.Box: (_encode_box, _decode_box),
    spaces.Discrete: (_encode_discrete, _decode_discrete),
    spaces.MultiDiscrete: (_encode_multi_discrete, _decode_multi_discrete),
    spaces.MultiBinary: (_encode_multi_binary, lambda data: spaces.MultiBinary(data["n"])),
    spaces.Text: (_encode_text, _decode_text),
}
NESTED: dict[type, Callable[[Any], Any]] = {
    spaces.Dict: _decode_dict,
    spaces.Tuple: lambda data: spaces.Tuple([decode_space(below) for below in data["spaces"]]),
    UnreadSpace: lambda data: UnreadSpace(data["kind"]),
}
