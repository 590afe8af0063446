"""The sections of an experiment file that a run follows from: where it learns, by what, how it is judged and kept.

In: a file's mappings, checked. Out: plain values; nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from policysmith.config.options import error_at, located
from policysmith.registry import register
from policysmith.types import Count, Name, NonNegativeInt, Share

__all__ = ["Environment", "Evaluation", "SelfPlay", "Store", "Training"]


@register("environment", slot="section", before="spaces")
@dataclass(frozen=True)
class Environment:
    """Which environment, how many copies, and how they run.

    `options` go to `gymnasium.make`, `wrappers` are names or `{type: …}` from the allow-list, in the order applied.
    With `check` one more environment takes a few steps before a run begins, and what is wrong with it is told.

    Args:
        id: The environment's name, as gymnasium knows it.
        num_envs: How many copies are played at the same time.
        vectorization: Whether copies run one after the other, in processes of their own, or in EnvPool.
        autoreset: Whether an episode begins in the step that ends the one before, in the next, or when it is asked to.
        options: What goes to gymnasium.make.
        wrappers: Wrappers from the allow-list, in the order applied.
        check: Whether one more environment takes a few steps before a run begins.
    """

    id: Name
    num_envs: Count = 8
    vectorization: Literal["sync", "async", "envpool"] = "sync"
    autoreset: Literal["same_step", "next_step", "disabled"] = "same_step"
    options: dict[str, Any] = field(default_factory=dict)
    wrappers: list[dict[str, Any] | str] = field(default_factory=list)
    check: bool = True


@register("training", slot="section", after="execution", part="algorithm")
class Training:
    """The algorithm that trains it, and its options."""


@register("self_play", slot="section", after="training")
@dataclass(frozen=True)
class SelfPlay:
    """Whom a policy meets while it learns a game for two: copies of its past, a random player, otherwise itself.

    Against itself it learns from both seats. `pool` copies are kept, one taken every `snapshot_every` iterations.

    Args:
        pool: How many copies of its past are kept.
        snapshot_every: How many iterations lie between two copies.
        past_share: Of the games, those against a copy.
        random_share: Of the games, those against a random player.
    """

    pool: Count = 8
    snapshot_every: Count = 10
    past_share: Share = 0.2
    random_share: Share = 0.1

    def __post_init__(self) -> None:
        if self.past_share + self.random_share > 1:
            message = f"together with random_share={self.random_share:g} more than all games, found {self.past_share:g}"
            raise located("self_play", [error_at(("past_share",), message, self.past_share)])


@register("evaluation", slot="section", after="self_play", always=True)
@dataclass(frozen=True)
class Evaluation:
    """How a trained policy is judged, and `every` how many steps of training it is (null: at the end alone).

    Judged on the way, it plays in environments of its own; the best one is kept in `best/`.

    Args:
        episodes: How many episodes it plays.
        deterministic: Whether it takes the likeliest action, or draws one.
        seed: Where the episodes' random numbers come from.
        every: How many steps of training lie between two judgements; null judges at the end alone.
    """

    episodes: Count = 100
    deterministic: bool = True
    seed: NonNegativeInt = 10_000
    every: Count | None = None


@register("store", slot="section", after="evaluation")
@dataclass(frozen=True)
class Store:
    """The store that training saves policies into, every so many iterations and at the end.

    `uri` is a directory (from the working directory, as `--output` is) or `s3://…`, `gs://…`, `hf://…`; `name` is by
    default that of the experiment, or else of the environment.

    Args:
        uri: The store's directory, or its address.
        every: How many iterations lie between two policies.
        name: What the policies are called; by default as the experiment, or else as the environment.
    """

    uri: Name = "policies"
    every: Count = 10
    name: Name | None = None
