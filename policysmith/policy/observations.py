"""Observations: from a gymnasium space to the graph's inputs, and from NumPy to tensors.

The graph's inputs are the environment's own arrays; encoders (images, categories) are components like any other.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from policysmith.errors import ConfigError, Problem, ShapeError, did_you_mean
from policysmith.graph.plan import TensorSpec
from policysmith.graph.spec import ComponentSpec
from policysmith.graph.wiring import expand_key
from policysmith.policy.readings import Known, Reading, reading_of, reading_of_0_1, stored_reading
from policysmith.policy.spaces import SpacePath, leaf_spaces, pick
from policysmith.registry import PartSpec, Registry

__all__ = ["Leaf", "Observations", "MASK", "ROOT"]

ROOT = "observation"
MASK = "action_mask"


@dataclass(frozen=True)
class Leaf:
    """One array of the observation: its edge name, where it lies, its space, and its tensor as the graph sees it."""

    name: str
    path: SpacePath
    space: Any
    spec: TensorSpec

    @property
    def ndim(self) -> int:
        """Dimensions of one observation, without a batch axis."""
        return len(self.spec.shape)


class Observations:
    """The leaves of an observation space, and how each is read.

    `exclude` names leaves left out, `scale` the divisor of a leaf's numbers, `layout` the axes of an image, `codes` how
    many codes each channel of a grid has, `normalize` leaves to be normalised (or all). Names are those of the space,
    with or without `observation.` before them. `known` is what the environment tells of leaves. `stored` is what
    `readings` gave when a policy was stored: what stands there holds, and a leaf that it lacks is read as in version
    0.1.0.

    In a Dict space the leaf `action_mask` holds legal actions: it is no input of the network, `mask_path` says so.
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        exclude: Sequence[str] = (),
        scale: Mapping[str, float] | None = None,
        normalize: bool | Sequence[str] = False,
        layout: Mapping[str, str] | None = None,
        codes: Mapping[str, Sequence[int]] | None = None,
        known: Mapping[str, Known] | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        self.space = space
        paths = {".".join(map(str, path)) for path, _ in _all_paths(space)}
        self.exclude = tuple(_plain(name, paths) for name in exclude)
        self.scale = {_plain(name, paths): value for name, value in (scale or {}).items()}
        self.layout = {_plain(name, paths): value for name, value in (layout or {}).items()}
        self.codes = {_plain(name, paths): value for name, value in (codes or {}).items()}
        self.normalize = normalize if isinstance(normalize, bool) else [_plain(name, paths) for name in normalize]
        self.mask_path: SpacePath | None = None
        self.leaves: list[Leaf] = []
        for path, leaf in leaf_spaces(space, ROOT, self.exclude):
            if path and path[-1] == MASK:
                self.mask_path = path
            else:
                name = ".".join(map(str, (ROOT, *path)))
                self.leaves.append(Leaf(name, path, leaf, _spec(leaf)))
        if not self.leaves:
            raise ConfigError("the observation space has no leaf left to read")
        self._embedded: dict[str, list[str]] = {}  # leaf → components that take its categories themselves
        self._check_names(paths)
        self.readings = self._read_leaves(known or {}, stored)

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """The graph's inputs."""
        return {leaf.name: leaf.spec for leaf in self.leaves}

    def encode(self, components: Mapping[str, ComponentSpec], registry: Registry) -> dict[str, ComponentSpec]:
        """The components with encoders put between raw leaves and those that read them."""
        names = [leaf.name for leaf in self.leaves]
        added = _Encoders(taken=set(components))
        changed = {}
        for name, spec in components.items():
            part = components[spec.use].part if spec.use is not None and spec.use in components else spec.part
            if part is not None and part.entry.traits.get("indices"):
                changed[name] = spec
                for leaf in (leaf for key in spec.in_keys for leaf in expand_key(key, names)):
                    self._embedded.setdefault(leaf, []).append(name)
                continue
            keys, arguments = [], []
            for index, key in enumerate(spec.in_keys):
                found = expand_key(key, names) if key not in components else []
                for leaf in found or [key]:
                    keys.append(self._encoded(leaf, added, registry) if found else leaf)
                    arguments += [spec.arguments[index]] if spec.arguments else []
            changed[name] = replace(spec, in_keys=tuple(keys), arguments=tuple(arguments) or None)
        return {**added.specs, **changed}

    def _encoded(self, name: str, added: _Encoders, registry: Registry) -> str:
        leaf = next(leaf for leaf in self.leaves if leaf.name == name)
        key = name
        encoder = self.readings[_short(leaf)].encoder(leaf.spec.dtype == torch.float32)
        for suffix, options in (("encoder", encoder), ("normalizer", self._normalizer(leaf))):
            if options is not None:
                key = added.put(f"{name}.{suffix}", key, registry.decode("component", options))
        return key

    def told(self) -> dict[str, str]:
        """What was decided for each leaf, as a sentence: its shape and type, how it is read, whether normalised."""
        told = {leaf.name: f"{_size(leaf.space)}: {self._told(leaf)}" for leaf in self.leaves}
        if self.mask_path is not None:
            told[".".join(map(str, (ROOT, *self.mask_path)))] = "legal actions, which are no input of the network"
        return told

    def _told(self, leaf: Leaf) -> str:
        if names := self._embedded.get(leaf.name):
            return f"categories, as they are into {' and '.join(names)}"
        return self.readings[_short(leaf)].sentence + (", normalised" if self._normalizer(leaf) else "")

    def _read_leaves(self, known: Mapping[str, Known], stored: Mapping[str, Any] | None) -> dict[str, Reading]:
        found, wrong = {}, []
        for leaf in self.leaves:
            name = _short(leaf)
            if stored is not None:
                given = stored.get(name)
                old = reading_of_0_1(leaf.space, self.scale.get(name))
                found[name] = old if given is None else stored_reading(given, leaf.space)
                continue
            try:
                found[name] = reading_of(
                    leaf.space, self.scale.get(name), self.layout.get(name), self.codes.get(name), known.get(name)
                )
            except ValueError as error:
                wrong.append(Problem("codes" if name in self.codes else "layout", f"{name}: {error}"))
        if wrong:
            raise ConfigError(wrong)
        return found

    def _normalizer(self, leaf: Leaf) -> dict[str, Any] | None:
        wanted = self.normalize if isinstance(self.normalize, bool) else _short(leaf) in self.normalize
        one_hot = self.readings[_short(leaf)].kind in ("categories", "codes")
        return {"type": "normalizer"} if wanted and not one_hot else None

    def _check_names(self, everything: Collection[str]) -> None:
        listed = [] if isinstance(self.normalize, bool) else list(self.normalize)
        leaves = {_short(leaf): leaf for leaf in self.leaves}
        wrong = [
            f"cannot exclude {n!r}{did_you_mean(n, everything)}; the space has: {', '.join(sorted(everything))}"
            for n in self.exclude
            if n not in everything
        ]
        for name in dict.fromkeys([*self.scale, *self.layout, *self.codes, *listed]):
            if name not in leaves:
                wrong.append(f"no observation {name!r}{did_you_mean(name, leaves)}; there are: {', '.join(leaves)}")
            elif leaves[name].spec.categories is not None:
                wrong.append(f"{name!r} holds categories, not numbers: it can't be scaled or normalised")
        if wrong:
            raise ConfigError([Problem("", text) for text in wrong])

    def read(self, observation: Any) -> list[Tensor]:
        """The leaves of a batch of observations: a tensor, or a nested dict or tuple of tensors."""
        if len(self.leaves) == 1 and isinstance(observation, Tensor):
            return [observation]
        return self._pick(observation)

    def is_single(self, observation: Any) -> bool:
        """Whether this is one observation, not a batch of them."""
        return np.ndim(self._pick(observation)[0]) == self.leaves[0].ndim

    def _pick(self, observation: Any) -> list[Any]:
        try:
            return [pick(observation, leaf.path) for leaf in self.leaves]
        except (KeyError, IndexError, TypeError):
            found = list(observation) if isinstance(observation, Mapping) else type(observation).__name__
            wanted = ", ".join(_short(leaf) for leaf in self.leaves)
            raise ShapeError(f"the observation must hold {wanted}; found {found}") from None

    def assemble(self, leaves: Sequence[Tensor]) -> Any:
        """What `read` took apart: leaves → a tensor, or a nested dict."""
        return _unflatten([leaf.path for leaf in self.leaves], leaves)

    def prepare(self, observation: Any, device: torch.device | str = "cpu") -> Any:
        """What an environment gives, one observation or a batch → tensors of the same structure with a batch axis."""
        arrays = [np.asarray(leaf) for leaf in self._pick(observation)]
        single = arrays[0].ndim == self.leaves[0].ndim
        tensors = [self._tensor(leaf, array, single, device) for leaf, array in zip(self.leaves, arrays, strict=True)]
        paths = [leaf.path for leaf in self.leaves]
        if self.mask_path is not None:
            mask = np.asarray(pick(observation, self.mask_path))
            tensors.append(torch.as_tensor(mask[None] if single else mask, device=device))
            paths.append(self.mask_path)
        return _unflatten(paths, tensors)

    def _tensor(self, leaf: Leaf, array: np.ndarray, single: bool, device: torch.device | str) -> Tensor:
        if array.ndim < leaf.ndim or array.shape[array.ndim - leaf.ndim :] != leaf.spec.shape:
            moved = leaf.ndim == 3 and sorted(array.shape[-3:]) == sorted(leaf.spec.shape)
            hint = " (looks like the channels are elsewhere: NHWC or NCHW?)" if moved else ""
            raise ShapeError(f"{leaf.name} has shape {array.shape}, expected (…, {_shape(leaf.spec.shape)}){hint}")
        start = getattr(leaf.space, "start", 0)
        tensor = torch.as_tensor(array, device=device)
        if leaf.spec.categories is not None:
            tensor = tensor.long() - torch.as_tensor(start, device=device) if np.any(start) else tensor.long()
        elif tensor.dtype != leaf.spec.dtype:
            tensor = tensor.to(leaf.spec.dtype)
        return tensor.unsqueeze(0) if single else tensor


class _Encoders:
    """Encoder components added to a graph, each under a legal name of its own."""

    def __init__(self, taken: set[str]) -> None:
        self.specs: dict[str, ComponentSpec] = {}
        self._taken = taken
        self._names: dict[str, str] = {}

    def put(self, wish: str, in_key: str, part: PartSpec) -> str:
        """Add a component unless it is there already; returns its name, `wish` with everything illegal replaced."""
        if wish not in self._names:
            stem = re.sub(r"\W", "_", wish)
            names = itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(2)))
            name = self._names[wish] = next(n for n in names if n not in self._taken)
            self._taken.add(name)
            self.specs[name] = ComponentSpec(name, part, (in_key,), (name,))
        return self._names[wish]


def _shape(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _short(leaf: Leaf) -> str:
    return ".".join(map(str, leaf.path)) or ROOT


def _spec(space: Any) -> TensorSpec:
    if isinstance(space, spaces.Discrete):
        return TensorSpec((), torch.int64, (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return TensorSpec(tuple(space.shape), torch.int64, tuple(int(n) for n in space.nvec.flat))
    if isinstance(space, spaces.MultiBinary):
        return TensorSpec(tuple(space.shape), torch.int8)
    dtype = (
        torch.float32 if np.issubdtype(space.dtype, np.floating) else torch.from_numpy(np.zeros(0, space.dtype)).dtype
    )
    return TensorSpec(tuple(space.shape), dtype)


def _plain(name: str, known: Collection[str]) -> str:
    """A leaf's name as the space has it, where it is written as components write it: after `observation.`."""
    short = name.removeprefix(f"{ROOT}.")
    return short if name not in known and short in known else name


def _size(space: Any) -> str:
    shape = "×".join(map(str, space.shape)) if getattr(space, "shape", None) else "one"
    return f"{shape} {space.dtype}"


def _all_paths(space: Any, path: SpacePath = ()) -> list[tuple[SpacePath, Any]]:
    if isinstance(space, spaces.Dict):
        children: list[tuple[Any, Any]] = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        children = list(enumerate(space.spaces))
    else:
        return [(path, space)]
    return [((*path, k), s) for k, s in children] + [p for k, s in children for p in _all_paths(s, (*path, k))]


def _unflatten(paths: Sequence[SpacePath], tensors: Sequence[Tensor]) -> Any:
    if paths[0] == ():
        return tensors[0]
    structure: dict[str | int, Any] = {}
    for path, tensor in zip(paths, tensors, strict=True):
        place = structure
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = tensor
    return structure
