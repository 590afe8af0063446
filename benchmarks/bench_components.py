"""What components cost: twenty tiny ones in a row, on the compiled plan and through a TensorDict.

In: nothing. Out: rows of the result table. The peers are `nn.Sequential` and tensordict's `TensorDictSequential`.
"""

from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn

from benchmarks.harness import Row, compare, latency

COUNT, WIDTH, BATCH = 20, 8, 4
LAYERS: tuple[dict[str, Any], ...] = ({"type": "nn.Linear", "out_features": WIDTH}, {"type": "nn.Tanh"})


def _key(index: int) -> str:
    return "x" if index == 0 else f"c{index - 1}"


def _graph() -> Any:
    """The row as a graph of components."""
    import policysmith

    components = {f"c{i}": {**LAYERS[i % 2], "in_keys": _key(i)} for i in range(COUNT)}
    return policysmith.build_model({"inputs": {"x": [WIDTH]}, "components": components}, seed=0)


def _container(graph: Any) -> Any:
    """The same layers as live components in a container."""
    from policysmith import ComponentContainer
    from policysmith.graph import TensorComponent

    layers = {name: TensorComponent(layer, [_key(i)], [name]) for i, (name, layer) in enumerate(_layers(graph))}
    return ComponentContainer(layers)


def _layers(graph: Any) -> list[tuple[str, nn.Module]]:
    return list(graph.graph_modules.items())


def components_compiled() -> list[Row]:
    """The emitted code of the plan, and its form that keeps every module a call."""
    graph = _graph()
    sequential = nn.Sequential(*(layer for _, layer in _layers(graph)))
    x = torch.randn(BATCH, WIDTH)
    rows = []
    with torch.no_grad():
        for name, ours in (("compiled plan", graph), ("bound form", graph.bound())):
            comparison = compare(lambda ours=ours: ours(x), lambda: sequential(x))  # type: ignore[misc]
            target = 1.1 if ours is graph else None
            rows.append(latency(f"{COUNT} tiny components, {name}, beside nn.Sequential", comparison, target))
    return rows


def components_tensordict() -> list[Row]:
    """A container on a TensorDict and on a dict; every call starts from one with the input alone."""
    graph = _graph()
    container, x = _container(graph), torch.randn(BATCH, WIDTH)
    modules = [TensorDictModule(layer, [_key(i)], [name]) for i, (name, layer) in enumerate(_layers(graph))]
    sequential = TensorDictSequential(*modules)

    def fresh() -> TensorDict:
        return TensorDict({"x": x}, [BATCH])

    def on_dict() -> dict[str, Tensor]:
        mapping: dict[str, Tensor] = container.execute({"x": x})
        return mapping

    rows = []
    with torch.no_grad():
        for name, ours, target in (
            ("on a TensorDict", lambda: container.execute(fresh()), 0.3),
            ("on a dict", on_dict, None),
        ):
            comparison = compare(ours, lambda: sequential(fresh()))
            rows.append(
                latency(f"{COUNT} tiny components, container {name}, beside TensorDictSequential", comparison, target)
            )
    return rows
