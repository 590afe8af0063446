"""The processes of one run, and what they tell each other.

In: torchrun's environment. Out: a `World`; alone, every exchange gives back what it was given and costs nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from policysmith.errors import PolicysmithError

__all__ = ["World", "joined"]

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # of one exchange; who waits for the writer waits without a limit
FAILURE = "failure"
COUNT = itertools.count()
PATIENCE = 5.0  # seconds in which a rank that failed can say why


class World:
    """`size` processes of which this is the one numbered `rank`; rank 0 writes all that is written.

    Every method that exchanges something is called by all ranks, in the same order.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None, store: Any = None) -> None:
        self.rank, self.size, self.device = rank, size, device or torch.device("cpu")
        self._store, self._waits = store, 0

    @property
    def writes(self) -> bool:
        """Whether this rank is the one that writes artifacts, logs and lines on the console."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, where the tensor was."""
        if self.size == 1:
            return tensor
        summed = tensor.detach().to(self.device, copy=True)
        dist.all_reduce(summed)
        return summed.to(tensor.device)

    def mean(self, tensor: Tensor, weight: float = 1.0) -> Tensor:
        """The mean over all ranks, each counted by its weight; a rank of weight 0 is left out, NaN and all."""
        if self.size == 1:
            return tensor
        own = tensor.double() * weight if weight else torch.zeros_like(tensor, dtype=torch.float64)
        summed = self.total(torch.cat([own.flatten(), own.new_tensor([weight])]))
        return (summed[:-1] / summed[-1]).view_as(tensor).to(tensor.dtype)

    def means(self, scalars: Mapping[str, float]) -> dict[str, float]:
        """The mean of each scalar; every rank has the same names."""
        if self.size == 1:
            return dict(scalars)
        names = sorted(scalars)
        found = self.mean(torch.tensor([scalars[name] for name in names], dtype=torch.float64)).tolist()
        means = dict(zip(names, found, strict=True))
        return {name: means[name] for name in scalars}

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes."""
        return bool(self.total(torch.tensor(float(flag))) > 0)

    def told(self, value: T) -> T:
        """What rank 0 has."""
        if self.size == 1:
            return value
        box = [value if self.writes else None]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]  # type: ignore[return-value]

    def gathered(self, value: T) -> list[T]:
        """What every rank has, by rank."""
        if self.size == 1:
            return [value]
        boxes: list[Any] = [None] * self.size
        dist.all_gather_object(boxes, value)
        return boxes

    def rows(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors of as many rows on every rank → those of all ranks, one rank after the other."""
        if self.size == 1:
            return list(tensors)
        return [self._rows(tensor) for tensor in tensors]

    def share_of_writer(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors in place with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                sent = tensor.detach().to(self.device)
                dist.broadcast(sent, src=0)
                if sent.data_ptr() != tensor.data_ptr():
                    tensor.detach().copy_(sent)

    def by_writer(self, work: Callable[[], T]) -> T:
        """What rank 0 makes of `work` while the others wait, however long that takes."""
        if self.size == 1:
            return work()
        made = work() if self.writes else None
        self._wait_for_writer()
        return self.told(made)  # type: ignore[return-value]

    def reseed(self, seed: int, step: int) -> None:
        """Give torch's generator a stream that follows from the seed, the rank and the step alone.

        A resumed run calls this at the same steps as an uninterrupted one. Alone nothing is done.
        """
        if self.size > 1:
            stream = (seed * 1_000_003 + step) * 65_537 + self.rank + 1
            torch.default_generator.manual_seed(stream % 2**63)
            if self.device.type == "cuda":
                torch.cuda.manual_seed(stream % 2**63)

    def told_failure(self, error: BaseException) -> PolicysmithError | None:
        """Tell the others of an error; or what to raise in its place, where it only follows from another's."""
        if self._store is None:
            return None
        text = str(error).strip() or type(error).__name__
        follows = isinstance(error, dist.DistError) or "gloo" in text.lower()
        patient_until = time.monotonic() + PATIENCE
        while follows and not self._failure() and time.monotonic() < patient_until:
            time.sleep(0.05)
        first = self._failure()
        if first is None and follows:
            lost = f"another process ended without a word, or did not answer within {TIMEOUT}: {text.splitlines()[0]}"
            return PolicysmithError(f"rank {self.rank} lost the others: {lost}; resume the run from its last save")
        if first is None or first[0] == self.rank:
            if first is None:
                self._tell((self.rank, text))
            return None
        return PolicysmithError(f"rank {first[0]} failed, and rank {self.rank} ends with it: {first[1]}")

    def _rows(self, tensor: Tensor) -> Tensor:
        own = tensor.detach().to(self.device).contiguous()
        sent = own.to(torch.uint8) if own.dtype == torch.bool else own
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        return torch.cat(parts).to(tensor.device, tensor.dtype)

    def _wait_for_writer(self) -> None:
        """An exchange has a time limit and an evaluation has none: those who wait look now and then."""
        self._waits += 1
        key = f"done/{self._waits}"
        if self._store is None:
            return
        if self.writes:
            self._store.set(key, b"1")
        while not self._store.check([key]):
            if failure := self._failure():
                raise PolicysmithError(f"rank {failure[0]} failed, and rank {self.rank} ends with it: {failure[1]}")
            time.sleep(0.02)

    def _failure(self) -> tuple[int, str] | None:
        try:
            found = self._store.get(FAILURE) if self._store.check([FAILURE]) else None
        except (dist.DistError, RuntimeError):  # whoever kept the store has gone
            return None
        return None if found is None else tuple(json.loads(found))

    def _tell(self, failure: tuple[int, str]) -> None:
        try:
            self._store.set(FAILURE, json.dumps(failure))
        except (dist.DistError, RuntimeError):
            return


@contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun's environment tells of, until the context ends; without one, a world of this process.

    A group that the caller has made is used as it is, and left. An error on one rank ends the others with one that
    names it.
    """
    size = dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    device = _device()
    store, made = _make_group(device)
    world = World(dist.get_rank(), size, device, store)
    try:
        yield world
    except Exception as error:
        instead = world.told_failure(error)
        if instead is not None:
            raise instead from error
        raise
    finally:
        if made:
            dist.destroy_process_group()


def _device() -> torch.device:
    """The accelerator of this process's number on its machine, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _make_group(device: torch.device) -> tuple[Any, bool]:
    """The store that ranks speak through, and whether the group is ours to end."""
    if dist.is_initialized():
        return None, False
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    return PrefixStore(f"policysmith/{next(COUNT)}", store), True  # torchrun's store outlives a group
