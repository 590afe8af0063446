"""Where the tokens of one call stand in time: which keys each query may see, and how key caches advance.

In: a sequence, or a memory's step counters and episode starts. Out: a `Timeline`, which every attention type takes.
B batch, T time of this call, S keys seen, W slots of a ring, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from policysmith.ops.leaf_function import leaf_function

__all__ = ["PositionCode", "Timeline", "both", "over_memory", "over_sequence", "unpadded"]

Shared = TypeVar("Shared")


class PositionCode(Protocol):
    """How positions enter a network: added to the tokens, turned into queries and keys, or added to the scores."""

    length: int | None  # positions that it knows; None: any

    def embed(self, x_BTD: Tensor, positions: Tensor) -> Tensor:
        """Tokens with their positions (B|1, T) added."""

    def rotate(self, x_BTHD: Tensor, timeline: Timeline, width: int | None = None) -> Tensor:
        """Queries or new keys of `width` D turned by the timeline's positions (B|1, T)."""

    def bias(self, heads: int, timeline: Timeline) -> Tensor | None:
        """What is added to the scores, (B|1, H, T, S)."""


class _NoPosition:
    """Leaves everything as it is."""

    length: int | None = None

    def embed(self, x_BTD: Tensor, positions: Tensor) -> Tensor:
        return x_BTD

    def rotate(self, x_BTHD: Tensor, timeline: Timeline, width: int | None = None) -> Tensor:
        return x_BTHD

    def bias(self, heads: int, timeline: Timeline) -> Tensor | None:
        return None


NO_POSITION: PositionCode = _NoPosition()


@dataclass(frozen=True, eq=False)
class _Step:
    """One new token: it goes into its slot, and the ring is what is seen."""

    slots_B: Tensor  # int64: where in all rows' rings, laid end to end, each row's new token goes

    def advance(self, cache: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        ring = _written(cache, self.slots_B, new)
        return ring, ring


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Many new tokens: ring and tokens are seen side by side, and the next ring is gathered from both."""

    source: Tensor  # int64 (B·W,): where in all rows' (ring, new tokens), laid end to end, each slot's content lies
    blank: Tensor | None  # bool (B, W): slots that the running episode has not reached

    def advance(self, cache: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat((cache, new.to(cache.dtype)), 1)
        ring = seen.flatten(0, 1).index_select(0, self.source).view_as(cache)
        return seen, ring if self.blank is None else torch.where(_over(self.blank, cache), 0, ring)


@dataclass(frozen=True, eq=False)
class Timeline:
    """Where the tokens of one call stand: their steps within episodes, which keys each may see, how caches advance."""

    positions: Tensor  # int64 (B|1, T): step of each query in its episode
    keys: Callable[[], Tensor]  # makes `key_positions`, which few read
    mask: Tensor | None  # bool (B|1, 1, T|1, S), True: may attend. None: everything, or the lower triangle if `causal`
    causal: bool  # only with mask None and T == S: exactly the lower triangle
    position: PositionCode = NO_POSITION
    ring: _Step | _Chunk | None = None  # how caches advance; None without memory
    padding: Tensor | None = None  # bool (B, T), True: no token here; already part of `mask`
    mixing: bool = False  # True: every query sees every token that is not padding
    common: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # what `shared` has made

    @property
    def key_positions(self) -> Tensor:
        """The step of each key in its episode, int64 (B|1, S)."""
        return self.shared("key_positions", self.keys)

    @property
    def steps_once(self) -> bool:
        """Whether this is one step after a memory."""
        return isinstance(self.ring, _Step)

    def remember(self, cache: Tensor | None, new: Tensor) -> tuple[Tensor, Tensor | None]:
        """The new tokens' entries (B, T, *) and a cache (B, W, *) → entries of all keys (B, S, *), next cache.

        The cache keeps its dtype and is not written to. A sequence has none: the new entries are all there is. Raises
        ValueError where a memory comes without its cache, or a sequence with one.
        """
        if (cache is None) != (self.ring is None):
            raise ValueError(
                "the timeline of a memory (over_memory) needs the cache that it continues: see initial_cache"
                if cache is None
                else "a cache needs the timeline of a memory (over_memory), found that of a sequence (over_sequence)"
            )
        return (new, None) if cache is None or self.ring is None else self.ring.advance(cache, new)

    def remember_all(
        self, cache: Mapping[str, Tensor] | None, new: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
        """`remember` for every entry of a layer's cache."""
        seen = {name: self.remember(None if cache is None else cache[name], tensor) for name, tensor in new.items()}
        after = {name: ring for name, (_, ring) in seen.items() if ring is not None}
        return {name: keys for name, (keys, _) in seen.items()}, None if cache is None else after

    def shared(self, key: Hashable, make: Callable[[], Shared]) -> Shared:
        """What the layers of one call have in common (angles, patterns), made by the first that asks.

        `key` says all that it depends on besides the timeline: its kind and options.
        """
        if key not in self.common:
            self.common[key] = make()
        return self.common[key]

    def as_bias(self, mask: Tensor | None, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Mask and bias of one layer → the same to the scores; the mask of one step becomes a bias that layers share.

        Kernels make one of every mask, each time anew. A step sees itself at least, so no query is without keys.
        """
        if not self.steps_once or bias is not None or mask is None or mask is not self.mask:
            return mask, bias
        return None, self.shared("bias", mask.log)  # log(True) = 0, log(False) = -inf

    def distances(self) -> Tensor:
        """How far each key lies from each query in steps, int64 (B|1, 1, T, S)."""
        return (self.positions.unsqueeze(-1) - self.key_positions.unsqueeze(-2)).abs().unsqueeze(1)

    def visible(self) -> Tensor | None:
        """The mask written out, also where it is the lower triangle; None: everything."""
        return _ordered(self.positions, self.key_positions) if self.causal else self.mask


def over_sequence(
    x_BTD: Tensor,
    position: PositionCode | None = None,
    causal: bool = False,
    window: int | None = None,
    padding_BT: Tensor | None = None,
) -> Timeline:
    """The timeline of a whole sequence, without memory: causal ∧ window ∧ padding, composed here and nowhere else.

    `window` lets a query see keys less than that many steps away, itself included; `padding_BT` is True where there is
    no token. Raises ValueError where the sequence is longer than `position` knows.
    """
    T, position = x_BTD.shape[1], NO_POSITION if position is None else position
    if position.length is not None and position.length < T:
        raise ValueError(f"a sequence of {T} tokens is longer than the position length={position.length}")
    reach = window if window is not None and window < T else None
    steps = torch.arange(T, device=x_BTD.device).unsqueeze(0)
    if reach is None and padding_BT is None:
        return Timeline(steps, lambda: steps, None, causal, position, mixing=not causal)
    mask = None if padding_BT is None else unpadded(padding_BT)
    if causal:
        mask = both(mask, _ordered(steps, steps))
    if reach is not None:
        mask = both(mask, (steps.unsqueeze(-1) - steps.unsqueeze(-2)).abs().unsqueeze(1) < reach)
    mixing = not causal and reach is None
    return Timeline(steps, lambda: steps, mask, False, position, padding=padding_BT, mixing=mixing)


def over_memory(
    position_B: Tensor,
    first_BT: Tensor | None,
    T: int,
    context: int,
    position: PositionCode | None = None,
) -> tuple[Timeline, Tensor]:
    """The timeline of `T` steps after a memory of `context` slots, and the next step counter (B,).

    `position_B` int64 counts the steps done in the running episode; step p lies in slot p mod `context` of every cache,
    and a query sees its own episode's last `context` steps, itself included. `first_BT` bool marks steps that begin an
    episode: counting restarts there and nothing before is seen. One step at a time and T at once give the same.
    """
    done_B1, position = position_B.unsqueeze(1), NO_POSITION if position is None else position
    if T == 1:
        return _step(done_B1, first_BT, context, position)
    return _chunk(done_B1, first_BT, T, context, position)


def unpadded(padding_BT: Tensor) -> Tensor:
    """Padding (B, T), True where there is no token → a mask (B, 1, 1, T), True where a key may be seen."""
    return ~padding_BT[:, None, None, :]


def both(mask: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Two masks as one; None allows everything."""
    if mask is None or other is None:
        return other if mask is None else mask
    return mask & other


def _step(done_B1: Tensor, first_B1: Tensor | None, context: int, position: PositionCode) -> tuple[Timeline, Tensor]:
    now_B1 = done_B1 if first_B1 is None else torch.where(first_B1, 0, done_B1)
    ring = _ring(now_B1, context)
    timeline = Timeline(now_B1, lambda: _contents(now_B1, context), ring[0], False, position, _Step(ring[1]))
    return timeline, now_B1.squeeze(1) + 1


@leaf_function
def _ring(now_B1: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Mask (B, 1, 1, W) of the slots that the episode has reached, slots (B,) to be written in all rows' rings."""
    slots_W = torch.arange(context, device=now_B1.device)
    reached_BW = slots_W <= now_B1  # slot w is first written by step w
    slot_B, rows = now_B1.squeeze(1).remainder(context), now_B1.shape[0]
    if rows > 1:
        slot_B = torch.add(slot_B, torch.arange(rows, device=slot_B.device), alpha=context)
    return reached_BW.unsqueeze(1).unsqueeze(1), slot_B


@leaf_function
def _contents(now_B1: Tensor, context: int) -> Tensor:
    """The step that lies in each slot (B, W): the last one, up to now, that the slot was for."""
    slots_W = torch.arange(context, device=now_B1.device)
    return now_B1 - (now_B1 - slots_W).remainder(context)


@leaf_function
def _written(cache: Tensor, slots_B: Tensor, new: Tensor) -> Tensor:
    """A copy of the cache (B, W, *) with the new tokens (B, 1, *) in their slots."""
    new = new if new.dtype == cache.dtype else new.to(cache.dtype)
    if cache.size(0) == 1:  # no other rows before it: three views less
        return cache.index_copy(1, slots_B, new)
    return cache.flatten(0, 1).index_copy(0, slots_B, new.squeeze(1)).view_as(cache)


def _chunk(
    done_B1: Tensor, first_BT: Tensor | None, T: int, context: int, position: PositionCode
) -> tuple[Timeline, Tensor]:
    """Everything in chunk time τ: the new steps are 0 … T-1, a ring's content lies before 0.

    Episodes are contiguous, so a key is of the query's own when it is no older than the episode's birth.
    """
    new_1T = torch.arange(T, device=done_B1.device).unsqueeze(0)
    slots_1W = torch.arange(context, device=done_B1.device).unsqueeze(0)
    birth_BT = _births(done_B1, first_BT, new_1T)
    steps_BT = new_1T - birth_BT
    old_BW = -1 - (done_B1 - 1 - slots_1W).remainder(context)
    keys_BS = torch.cat((old_BW, new_1T.expand(done_B1.shape[0], -1)), 1)
    oldest_BT = torch.maximum(birth_BT, new_1T - (context - 1))
    mask_BTS = (keys_BS.unsqueeze(1) >= oldest_BT.unsqueeze(2)) & (keys_BS.unsqueeze(1) <= new_1T.unsqueeze(2))
    last_BW = T - 1 - (steps_BT[:, -1:] - slots_1W).remainder(context)
    rows_B1 = torch.arange(done_B1.shape[0], device=done_B1.device).unsqueeze(1) * (context + T)
    source = (rows_B1 + torch.where(last_BW >= 0, context + last_BW, slots_1W)).flatten()
    blank = None if first_BT is None else (last_BW < birth_BT[:, -1:]) & first_BT.any(1, keepdim=True)
    ring = _Chunk(source, blank)

    def keys() -> Tensor:
        return torch.cat((done_B1 + old_BW, steps_BT), 1)

    return Timeline(steps_BT, keys, mask_BTS.unsqueeze(1), False, position, ring), steps_BT[:, -1] + 1


def _births(done_B1: Tensor, first_BT: Tensor | None, new_1T: Tensor) -> Tensor:
    """When the episode of each new step began, in chunk time; (B, T), or (B, 1) where nothing begins."""
    if first_BT is None:
        return -done_B1
    begun_BT = torch.where(first_BT, new_1T, -1).cummax(1).values
    return torch.where(begun_BT >= 0, begun_BT, -done_B1)


def _ordered(positions: Tensor, key_positions: Tensor) -> Tensor:
    """True where a key is not later than the query: (B|1, T), (B|1, S) → (B|1, 1, T, S)."""
    return (positions.unsqueeze(-1) >= key_positions.unsqueeze(-2)).unsqueeze(1)


def _over(slots: Tensor, cache: Tensor) -> Tensor:
    """What is said of slots (B, n), with the axes of a cache's entries behind it."""
    return slots.view(*slots.shape, *(1,) * (cache.dim() - 2))
