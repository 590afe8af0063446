"""Graphs of schema version 1: how long building from YAML takes, and what a call costs beside a hand-written module.

In: nothing. Out: rows of the result table. Peers are the same network written by hand, with the same weights.
"""

import statistics
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from benchmarks.harness import Row, compare, duration, latency, median_interval, time_alone

NODES, WIDTH, BATCH = 20, 64, 64
ALLOWED = 25e-3  # seconds for a build


class _ByHand(nn.Module):
    """Ten linear layers with activations between, each pair added to what came in."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return x + x


def _config(width: int, layers: int) -> dict[str, Any]:
    """As `_ByHand`: a node for each layer, each activation and the sum."""
    modules: dict[str, Any] = {"act": {"_type_": "nn.ReLU"}}
    nodes, last = [], "x"
    for index in range(layers):
        modules[f"fc{index}"] = {"_type_": "nn.Linear", "in_features": width, "out_features": width}
        nodes.append({"name": f"h{index}", "call": f"module:fc{index}", "args": [f"${last}"]})
        nodes.append({"name": f"a{index}", "call": "module:act", "args": [f"$h{index}"]})
        last = f"a{index}"
    nodes.append({"name": "y", "call": "op:add", "args": [f"${last}", f"${last}"]})
    graph = {"inputs": ["x"], "modules": modules, "nodes": nodes, "outputs": ["y"]}
    return {"schema_version": 1, "model": {"graph": graph}}


def graph_yaml_build() -> list[Row]:
    """From the text of 21 nodes to a model, with and without the shapes; and a large one beside building it by hand."""
    import policysmith

    with TemporaryDirectory() as folder:
        small, large = (Path(folder) / name for name in ("small.yaml", "large.yaml"))
        small.write_text(yaml.safe_dump(_config(WIDTH, NODES // 2)), encoding="utf-8")
        large.write_text(yaml.safe_dump(_config(1024, NODES // 2)), encoding="utf-8")
        rows = []
        # A plan runs every operation once on meta tensors, 0.4 to 1 ms each in torch itself: it informs.
        for name, options, target in (("", {}, 1.0), (", shapes planned", {"inputs": {"x": [WIDTH]}}, None)):
            build = partial(policysmith.build_model, small, seed=0, **options)
            build()
            seconds = [time_alone(build, rounds=1) for _ in range(31)]
            ratio = statistics.median(seconds) / ALLOWED
            low, high = (bound / ALLOWED for bound in median_interval(seconds))
            took, allowed = duration(statistics.median(seconds)), f"{duration(ALLOWED)} allowed"
            title = f"build {NODES + 1} nodes from YAML of version 1{name}"
            rows.append(Row(title, took, allowed, ratio, low, high, target))
        kept: list[nn.Module] = []  # so that no side's clock pays for freeing the model before
        comparison = compare(
            lambda: kept.append(policysmith.build_model(large, seed=0)),
            lambda: kept.append(_ByHand(1024, NODES // 2)),
            rounds=9,
            inner=1,
        )
    return [*rows, latency("build 10 M parameters from YAML of version 1, against by hand", comparison, 1.5)]


def graph_yaml_forward() -> list[Row]:
    """One call, beside the same written by hand."""
    import policysmith

    rows = []
    for batch in (1, BATCH):
        ours = policysmith.build_model(_config(WIDTH, NODES // 2), seed=0)
        hand, x = _ByHand(WIDTH, NODES // 2), torch.randn(batch, WIDTH)
        state = {n.replace("graph_modules.fc", "layers."): tensor for n, tensor in ours.state_dict().items()}
        hand.load_state_dict(state)
        torch.testing.assert_close(ours(x), hand(x), rtol=0, atol=1e-5)
        comparison = compare(partial(ours, x), partial(hand, x))
        title = f"forward, {NODES + 1} nodes of version 1, batch {batch}, against by hand"
        rows.append(latency(title, comparison, 1.05))
    return rows
