"""Behaviour cloning in two processes under DDP: how much of a step communication takes, by torch's profiler.

In: nothing. Out: rows of the result table, which inform. Both processes share this machine's cores, and gloo's loopback
stands for a network: the share says what averaging gradients costs, not how fast a cluster would be.
"""

import json
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as processes

from benchmarks.bench_offline import BATCH, HIDDEN, _record, _Silent
from benchmarks.harness import Row, duration

UPDATES = 100


def distributed_cloning() -> list[Row]:
    """Communication's share of an update, and the update beside that of one process."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        place = _record(Path(folder) / "data")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        alone, _ = _measured(place)
        processes.spawn(_rank, (str(place), port), nprocs=2)
        seconds, communicating = json.loads((place / "measured.json").read_text())
    name = f"DDP, 2 processes: all-reduce in a step of behaviour cloning, 2×{HIDDEN} MLP, batch {BATCH} each"
    ours = f"{communicating / seconds:.0%} of {duration(seconds)}"
    return [Row(name, ours, f"one process: {duration(alone)} a step")]


def _rank(rank: int, place: str, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    measured = _measured(Path(place))
    if rank == 0:
        (Path(place) / "measured.json").write_text(json.dumps(measured))


def _measured(place: Path) -> tuple[float, float]:
    """Seconds of an update, and how many of them gloo's collectives take; the latter under the profiler."""
    from policysmith.training.distribution import joined

    with joined() as world:
        train = _trainer(place, world)
        train()
        started = time.perf_counter()
        train()
        plain = (time.perf_counter() - started) / UPDATES
        if world.size == 1:
            return plain, 0.0
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            started = time.perf_counter()
            train()
            profiled = (time.perf_counter() - started) / UPDATES
        spent = sum(e.time_range.elapsed_us() for e in profiler.events() if e.name.startswith("gloo:")) / 1e6 / UPDATES
        return plain, plain * spent / profiled


def _trainer(place: Path, world: Any) -> Any:
    import policysmith
    from policysmith.registry import default_registry
    from policysmith.training.datasets import MemmapDataset
    from policysmith.training.distribution.choice import strategy_of
    from policysmith.training.offline.objectives import Start
    from policysmith.training.offline.offline import Offline

    episodes = MemmapDataset(str(place)).open()
    config = {"model": {"type": "mlp", "hidden": [HIDDEN, HIDDEN], "activation": "tanh"}}
    policy = policysmith.build(config, episodes.observation_space, episodes.action_space, seed=0)
    algorithm = Offline(updates=UPDATES, batch_size=BATCH, validation_share=0.0)
    learner = algorithm.objective.start(Start(policy, episodes, 0, default_registry))
    samplers = algorithm.samplers(learner, episodes, 0, world)
    strategy = strategy_of(algorithm, world, policy)
    optimizer = algorithm.optimizer(learner)
    return lambda: algorithm.learn(learner, samplers, optimizer, _Silent(), strategy=strategy)
