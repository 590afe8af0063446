"""Actions: from a gymnasium space to the parameters a policy head gives, and from those to actions.

In: flat distribution parameters (B, P) and legal masks. Out: actions in the environment's own units, log-probabilities
and entropies (B,). Plain tensor code that traces with the model; no `torch.distributions` on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from policysmith.errors import ConfigError
from policysmith.ops import sample
from policysmith.policy.log_std import log_std_range
from policysmith.policy.spaces import SpacePath, leaf_spaces, leaves_of, rebuild
from policysmith.policy.structures import Arrays, Tensors

__all__ = ["ActionDistribution", "ActionLayout"]

# For each leaf: how many parameters a linear layer gives, and how many are free (a state-independent log-deviation).
ActionLayout = tuple[tuple[int, int], ...]
# Of a mean before tanh, which is flat from 10 on: beyond, log-probabilities would be infinite, their ratio no number.
LOC_LIMIT = 1e4


class CategoricalLeaf(nn.Module):
    """K categorical variables of one leaf: Discrete (K = 1), MultiDiscrete, MultiBinary (pairs of logits 0 and l).

    Tables are (*, N) for a single variable and (*, K, N) for several; shorter variables are padded as illegal.
    """

    squash = False
    columns: Tensor
    start: Tensor

    def __init__(self, space: spaces.Space) -> None:
        super().__init__()
        self.space = space
        self.binary = isinstance(space, spaces.MultiBinary)
        self.single = isinstance(space, spaces.Discrete)
        self.sizes = _sizes(space)
        self.choices = max(self.sizes)
        self.padded = min(self.sizes) < self.choices
        self.parameters_wanted = len(self.sizes) if self.binary else sum(self.sizes)
        self.mask_width = sum(self.sizes)
        self.shape = tuple(space.shape or ())
        self.register_buffer("columns", self._columns(), persistent=False)
        start = np.asarray(getattr(space, "start", 0))
        self.register_buffer("start", torch.as_tensor(start).long(), persistent=False)
        self.shifted = bool(start.any())

    def _columns(self) -> Tensor:
        """For each cell of the padded table, the flat column it shows; the last column is the illegal filler."""
        if not self.padded:
            return torch.arange(sum(self.sizes))
        total, table, offset = sum(self.sizes), [], 0
        for size in self.sizes:
            table += [*range(offset, offset + size), *[total] * (self.choices - size)]
            offset += size
        return torch.tensor(table)

    def _table(self, flat: Tensor, filler: float | bool) -> Tensor:
        if self.single:
            return flat
        if self.padded:
            flat = torch.cat([flat, torch.full_like(flat[..., :1], filler)], -1).index_select(-1, self.columns)
        return flat.unflatten(-1, (len(self.sizes), self.choices))

    def log_probs(self, params: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Parameters and mask (*, Σ sizes) → log-probabilities and mask as tables."""
        table = torch.stack([torch.zeros_like(params), params], -1) if self.binary else self._table(params, 0.0)
        if mask is not None:
            mask = self._table(mask, False)
        elif self.padded:
            mask = self._table(torch.ones_like(params, dtype=torch.bool), False)
        if mask is not None:
            table = sample.mask_logits(table, mask)
        return torch.log_softmax(table, -1), mask

    def choose(self, params: Tensor, mask: Tensor | None, deterministic: bool) -> tuple[Tensor, Tensor]:
        """Parameters (*, P) → action in the environment's units, and log_prob (*)."""
        table, mask = self.log_probs(params, mask)
        index = table.argmax(-1) if deterministic else sample.categorical_sample(table, self.choices)
        log_prob = sample.categorical_log_prob(table, index)
        if mask is not None:
            some = mask.any(-1)
            index, log_prob = index * some, torch.where(some, log_prob, 0.0)
        return self._to_action(index), log_prob if self.single else log_prob.sum(-1)

    def evaluate(self, params: Tensor, action: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Parameters and action → log_prob (*), entropy (*)."""
        table, mask = self.log_probs(params, mask)
        log_prob = sample.categorical_log_prob(table, self._to_index(action))
        entropy = sample.categorical_entropy(table, mask)
        if mask is not None:
            log_prob = torch.where(mask.any(-1), log_prob, 0.0)  # the entropy sums legal choices: it is 0 already
        return (log_prob, entropy) if self.single else (log_prob.sum(-1), entropy.sum(-1))

    def _to_action(self, index: Tensor) -> Tensor:
        if len(self.shape) > 1:
            index = index.unflatten(-1, self.shape)
        return index + self.start if self.shifted else index

    def _to_index(self, action: Tensor) -> Tensor:
        index = action - self.start if self.shifted else action
        index = index.long()
        return index.flatten(-len(self.shape)) if len(self.shape) > 1 else index


class GaussianLeaf(nn.Module):
    """A Box with a diagonal Gaussian. D numbers.

    `squash` bounds the action by tanh, scaled to the space's limits; the draw is what tanh is taken of. With
    `dependent_std` a network gives the log-deviation, and its zero stands for `initial_std`. It stays in `log_std`.
    """

    mask_width = 0
    low: Tensor
    high: Tensor
    centre: Tensor
    half_range: Tensor

    def __init__(
        self,
        space: spaces.Box,
        squash: bool,
        dependent_std: bool,
        initial_std: float,
        log_std: tuple[float, float],
    ) -> None:
        super().__init__()
        self.log_std_range = log_std
        self.space, self.squash, self.dependent_std = space, squash, dependent_std
        self.log_initial_std = math.log(initial_std)
        self.size = int(np.prod(space.shape))
        self.parameters_wanted = 2 * self.size
        self.shape = tuple(space.shape)
        low, high = (torch.as_tensor(bound.astype(np.float32)).flatten() for bound in (space.low, space.high))
        # Halved first: the sum or difference of two numbers near the end of float32 is infinite.
        centre, half = low / 2 + high / 2, high / 2 - low / 2
        if squash and not (torch.isfinite(half).all() and (half > 0).all()):
            raise ConfigError(
                "squash needs an action space with finite bounds; set squash: false or rescale the actions"
                if (low < high).all()
                else "squash needs bounds that differ: an action with low = high can't be chosen; set squash: false"
            )
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("half_range", half, persistent=False)
        self.log_half = float(self.half_range.log().sum()) if squash else 0.0

    def split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters (*, 2D) → loc (*, D), log_std (*, D) within its bounds."""
        loc, log_std = params[..., : self.size], params[..., self.size :]
        if self.dependent_std:
            log_std = log_std + self.log_initial_std
        if self.squash:
            loc = sample.bounded(loc, -LOC_LIMIT, LOC_LIMIT)
        return loc, sample.bounded(log_std, *self.log_std_range)

    def draw(self, params: Tensor, mask: Tensor | None, deterministic: bool) -> tuple[Tensor, Tensor]:
        """Parameters (*, 2D) → what tanh is taken of (*, *shape), log_prob (*), exact however flat tanh is there."""
        loc, log_std = self.split(params)
        u = self._drawn(loc, log_std, deterministic)
        return self._shaped(u), self._log_prob(u, loc, log_std)

    def choose(self, params: Tensor, mask: Tensor | None, deterministic: bool) -> tuple[Tensor, Tensor]:
        """Parameters (*, 2D) → action (*, *shape), log_prob (*) of the action as it is rounded."""
        loc, log_std = self.split(params)
        action = self.action_of(self._shaped(self._drawn(loc, log_std, deterministic)))
        return action, self._log_prob(self._draw_of(action), loc, log_std)

    def evaluate(
        self, params: Tensor, action: Tensor, mask: Tensor | None, drawn: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Parameters and action, or with `drawn` the draw → log_prob (*), entropy (*)."""
        loc, log_std = self.split(params)
        if self.squash:
            entropy = sample.squashed_entropy(loc, log_std) + self.log_half
        else:
            entropy = sample.normal_entropy(log_std)
        u = self._flat(action) if drawn else self._draw_of(action)
        return self._log_prob(u, loc, log_std), entropy

    def action_of(self, draw: Tensor) -> Tensor:
        """A draw (*, *shape) → the action, in the environment's units."""
        if not self.squash:
            return draw
        y = self.centre + self.half_range * sample.open_tanh(self._flat(draw))
        return self._shaped(y.clamp(self.low, self.high))  # rounding may take the sum past a limit

    def _drawn(self, loc: Tensor, log_std: Tensor, deterministic: bool) -> Tensor:
        # No gradient flows through the action: its log-probability has that of the score, as with Categorical.
        return loc.detach() if deterministic else (loc + log_std.exp() * torch.randn_like(loc)).detach()

    def _draw_of(self, action: Tensor) -> Tensor:
        """The draw (*, D) behind an action, as well as its rounding tells."""
        flat = self._flat(action)
        return sample.inverse_tanh((flat - self.centre) / self.half_range) if self.squash else flat

    def _log_prob(self, u: Tensor, loc: Tensor, log_std: Tensor) -> Tensor:
        if not self.squash:
            return sample.normal_log_prob(u, loc, log_std)
        return sample.squashed_log_prob(u, loc, log_std) - self.log_half

    def _flat(self, action: Tensor) -> Tensor:
        if not self.shape:
            return action.unsqueeze(-1)
        return action.flatten(-len(self.shape)) if len(self.shape) > 1 else action

    def _shaped(self, flat: Tensor) -> Tensor:
        if not self.shape:
            return flat.squeeze(-1)
        return flat.unflatten(-1, self.shape) if len(self.shape) > 1 else flat


class ActionDistribution(nn.Module):
    """The policy's distribution over an action space: one leaf, or a Dict or Tuple of independent leaves.

    Parameters are flat, (B, P): the leaves' one after another, depth first. Log-probabilities and entropies add up.
    """

    def __init__(
        self,
        space: spaces.Space,
        squash: bool = False,
        dependent_std: bool = False,
        initial_std: float = 1.0,
        log_std_min: float | None = None,
        log_std_max: float | None = None,
    ) -> None:
        super().__init__()
        self.space, self.dependent_std = space, dependent_std
        bounds = log_std_range("dependent" if dependent_std else "independent", initial_std, log_std_min, log_std_max)
        found = list(leaf_spaces(space, "action"))
        self.paths: list[SpacePath] = [path for path, _ in found]
        self.leaf_modules = nn.ModuleList(_leaf(leaf, squash, dependent_std, initial_std, bounds) for _, leaf in found)
        self.sizes = [leaf.parameters_wanted for leaf in self.leaves]
        self.composite = self.paths != [()]
        self.discrete = [i for i, leaf in enumerate(self.leaves) if leaf.mask_width]
        self.squashed = any(leaf.squash for leaf in self.leaves)

    @property
    def leaves(self) -> list[Any]:
        """One module a leaf of the space: `CategoricalLeaf` or `GaussianLeaf`."""
        return list(self.leaf_modules)

    @property
    def num_parameters(self) -> int:
        """P, the width of the policy's output."""
        return sum(self.sizes)

    @property
    def layout(self) -> ActionLayout:
        """What a head must give for each leaf: (linear outputs, free parameters)."""
        return tuple(
            (leaf.parameters_wanted, 0) if self.dependent_std or leaf.mask_width else (leaf.size, leaf.size)
            for leaf in self.leaves
        )

    def choose(
        self, params: Tensor, masks: Sequence[Tensor] = (), deterministic: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Parameters (B, P), one mask for each discrete leaf or none → action leaves, log_prob (B,)."""
        chosen = [
            leaf.choose(part, mask, deterministic)
            for leaf, part, mask in zip(self.leaves, self._split(params), self._masks(masks), strict=True)
        ]
        return [action for action, _ in chosen], _total([log_prob for _, log_prob in chosen])

    def draw(self, params: Tensor, masks: Sequence[Tensor] = ()) -> tuple[list[Tensor], Tensor]:
        """As `choose`, but squashed leaves come before tanh: the draws, whose log_prob no rounding of tanh touches."""
        drawn = [
            leaf.draw(part, mask, False) if leaf.squash else leaf.choose(part, mask, False)
            for leaf, part, mask in zip(self.leaves, self._split(params), self._masks(masks), strict=True)
        ]
        return [draw for draw, _ in drawn], _total([log_prob for _, log_prob in drawn])

    def action_of(self, draw: Tensors) -> Any:
        """Draws → actions in the environment's units, both in the space's structure; what is not squashed is both."""
        leaves = zip(self.leaves, self.leaves_of(draw), strict=True)
        return self.structure([leaf.action_of(found) if leaf.squash else found for leaf, found in leaves])

    def evaluate(
        self, params: Tensor, actions: Sequence[Tensor], masks: Sequence[Tensor] = (), drawn: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Parameters (B, P) and action leaves, or with `drawn` what `draw` gave → log_prob (B,), entropy (B,)."""
        results = [
            leaf.evaluate(part, action, mask, drawn) if leaf.squash else leaf.evaluate(part, action, mask)
            for leaf, part, action, mask in zip(
                self.leaves, self._split(params), actions, self._masks(masks), strict=True
            )
        ]
        return _total([log_prob for log_prob, _ in results]), _total([entropy for _, entropy in results])

    def leaves_of(self, action: Any) -> list[Tensor]:
        """Action in the space's structure → its leaves."""
        return leaves_of(action, self.paths) if self.composite else [action]

    def structure(self, leaves: Sequence[Any]) -> Any:
        """Leaves → the space's structure."""
        return rebuild(self.space, leaves) if self.composite else leaves[0]

    def to_environment(self, action: Tensors) -> Any:
        """Tensors (B, …) → NumPy arrays for the environment's step: Box clipped to its limits, dtypes its own."""
        arrays: list[np.ndarray] = []
        for leaf, tensor in zip(self.leaves, self.leaves_of(action), strict=True):
            array = tensor.detach().cpu().numpy()
            if isinstance(leaf, GaussianLeaf):
                array = array.clip(leaf.space.low, leaf.space.high)
            arrays.append(array.astype(leaf.space.dtype, copy=False))
        return self.structure(arrays)

    def first(self, action: Arrays) -> Any:
        """The first row of a batch of NumPy actions: arrays, or for Discrete a scalar."""
        rows = [a[0] for a in self.leaves_of(action)]
        return self.structure(
            [r if leaf.mask_width else np.asarray(r) for leaf, r in zip(self.leaves, rows, strict=True)]
        )

    def _split(self, params: Tensor) -> list[Tensor]:
        if len(self.sizes) == 1:
            return [params]
        starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        return [params.narrow(-1, start, size) for start, size in zip(starts, self.sizes, strict=True)]

    def _masks(self, masks: Sequence[Tensor]) -> list[Tensor | None]:
        given = dict(zip(self.discrete, masks, strict=True)) if masks else {}
        return [given.get(i) for i in range(len(self.leaves))]


def _leaf(
    space: spaces.Space, squash: bool, dependent_std: bool, initial_std: float, log_std: tuple[float, float]
) -> CategoricalLeaf | GaussianLeaf:
    if not isinstance(space, spaces.Box):
        return CategoricalLeaf(space)
    if not np.issubdtype(space.dtype, np.floating):
        raise ConfigError(f"a Box action space of {space.dtype} is not continuous: declare it as MultiDiscrete")
    return GaussianLeaf(space, squash, dependent_std, initial_std, log_std)


def _sizes(space: spaces.Space) -> tuple[int, ...]:
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiBinary):
        return (2,) * int(np.prod(space.shape))
    return tuple(int(n) for n in space.nvec.flat)


def _total(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
