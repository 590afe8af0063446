"""Small costs: acting, forward, training pass, a node, building 1,000 components, importing.

In: nothing. Out: rows of the result table. What calls policysmith stands first, its hand-written peers second, the
benchmarks last. Both sides always have the same number of parameters; that is checked.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import yaml
from torch import Tensor, nn

from benchmarks.harness import Comparison, Row, compare, duration, latency, time_alone
from benchmarks.peers.cleanrl_ppo import Agent, layer_init

OBSERVATION_SPACE = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACTION_SPACE = gym.spaces.Discrete(2)
CHAIN = 64  # nodes of the per-node benchmark
WIDTH = 32  # features between the components of the large graph
REPEATED_SPECS: tuple[dict[str, Any], ...] = (
    {"type": "nn.Linear", "out_features": WIDTH},
    {"type": "mlp", "hidden": [WIDTH], "activation": "tanh"},
    {"type": "mlp", "hidden": [WIDTH, WIDTH], "activation": "tanh"},
    {"type": "mlp", "hidden": [2 * WIDTH, WIDTH], "activation": "relu"},
)


# policysmith's side


def _policy() -> nn.Module:
    import policysmith

    model = {"type": "mlp", "hidden": [64, 64], "activation": "tanh"}
    return policysmith.build({"model": model}, OBSERVATION_SPACE, ACTION_SPACE, seed=0)


def _graph(config: dict[str, Any]) -> nn.Module:
    import policysmith

    return policysmith.build_model(config, seed=0)


def _parse(text: str) -> object:
    from policysmith.config.load import load

    return load(text)


def _check(config: dict[str, Any]) -> object:
    import policysmith

    return policysmith.check(config)


def _plan(config: dict[str, Any]) -> object:
    import policysmith

    return policysmith.describe(config)


def _chain_config(specs: list[dict[str, Any]], features: int) -> dict[str, Any]:
    sources = ["x", *(f"c{i}" for i in range(len(specs) - 1))]
    components = {f"c{i}": {**spec, "in_keys": sources[i]} for i, spec in enumerate(specs)}
    return {"format": 1, "inputs": {"x": [features]}, "components": components, "outputs": f"c{len(specs) - 1}"}


# the peers' side


class _HandWritten(Agent):
    """CleanRL's agent with the plain forward one would add to it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(x), self.critic(x).squeeze(-1)


def _hand_component(spec: dict[str, Any]) -> nn.Module:
    if spec["type"] == "nn.Linear":
        return layer_init(nn.Linear(WIDTH, spec["out_features"]))
    activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[spec["activation"]]
    layers: list[nn.Module] = []
    for size_in, size_out in zip([WIDTH, *spec["hidden"]], spec["hidden"], strict=False):
        layers += [layer_init(nn.Linear(size_in, size_out)), activation()]
    return nn.Sequential(*layers)


# the benchmarks


def acting() -> list[Row]:
    """Forward, sample, log-probability and value, as a rollout calls them."""
    policy, agent = _pair()
    act = policy.acting()

    def row(batch: int, target: float) -> Row:
        obs = torch.randn(batch, 4)

        def peer() -> None:
            with torch.no_grad():
                agent.get_action_and_value(obs)

        return latency(f"acting, batch {batch}", compare(lambda: act(obs), peer), target)

    return [row(1, 0.25), row(64, 0.40)]


def forward() -> list[Row]:
    """Logits and value without gradients."""
    policy, agent = _pair()

    def row(batch: int, target: float) -> Row:
        obs = torch.randn(batch, 4)
        with torch.no_grad():
            comparison = compare(lambda: policy(obs), lambda: agent(obs))
        return latency(f"forward, batch {batch}", comparison, target)

    return [row(1, 0.5), row(64, 0.75)]


def forward_backward() -> list[Row]:
    """A training pass: the network alone, and with log-probability and entropy as PPO needs them."""
    policy, agent = _pair()
    obs, actions = torch.randn(128, 4), torch.randint(2, (128,))

    weights = {model: list(model.parameters()) for model in (policy, agent)}

    def backward(model: nn.Module, loss: Tensor) -> None:
        for weight in weights[model]:
            weight.grad = None
        loss.backward()

    def network(model: nn.Module) -> None:
        logits, value = model(obs)
        backward(model, logits.square().mean() + value.square().mean())

    def ours() -> None:
        log_prob, entropy, value = policy.evaluate_actions(obs, actions)
        backward(policy, log_prob.mean() + entropy.mean() + value.square().mean())

    def peer() -> None:
        _, log_prob, entropy, value = agent.get_action_and_value(obs, actions)
        backward(agent, log_prob.mean() + entropy.mean() + value.square().mean())

    alone = compare(lambda: network(policy), lambda: network(agent))
    return [
        latency("forward + backward, batch 128", alone, 1.0),
        latency("evaluate actions + backward, batch 128", compare(ours, peer), 1.0),
    ]


def per_node() -> list[Row]:
    """A chain of one-microsecond nodes, so that what is added around each is seen."""
    bound = _graph(_chain_config([{"type": "nn.Tanh"}] * CHAIN, features=16)).bound()
    sequential = nn.Sequential(*(nn.Tanh() for _ in range(CHAIN)))
    x = torch.randn(1, 16)
    with torch.no_grad():
        comparison = compare(lambda: bound(x), lambda: sequential(x))
    return [latency(f"bound graph of {CHAIN} x nn.Tanh beside nn.Sequential", comparison, 1.1)]


def build_1000() -> list[Row]:
    """Checked, planned and initialised graph beside the bare modules; its stages apart."""
    specs = [REPEATED_SPECS[i % len(REPEATED_SPECS)] for i in range(1000)]
    config = _chain_config(specs, WIDTH)

    def by_hand() -> nn.Module:
        return nn.ModuleDict({f"c{i}": _hand_component(spec) for i, spec in enumerate(specs)})

    _same_size(_graph(config), by_hand())
    kept: list[nn.Module] = []  # so that no side's clock pays for freeing the model before
    building = compare(lambda: kept.append(_graph(config)), lambda: kept.append(by_hand()), rounds=9, inner=1)
    text = yaml.safe_dump(config)
    stages: dict[str, Callable[[], object]] = {
        "parse YAML": lambda: _parse(text),
        "check": lambda: _check(config),
        "check and plan": lambda: _plan(config),
    }
    return [
        latency("build 1,000 components", building, 2.0),
        *(Row(f"1,000 components: {name}", duration(time_alone(stage))) for name, stage in stages.items()),
    ]


def import_time() -> list[Row]:
    """Fresh processes, so that nothing is imported yet; the interpreter's own start is left out."""
    base, ours = "import torch, tensordict", "import torch, tensordict, policysmith"
    _import_seconds(ours)  # fills the disk cache and __pycache__
    pairs = [(_import_seconds(ours), _import_seconds(base)) for _ in range(15)]
    return [latency("import beside torch and tensordict", Comparison(*zip(*pairs, strict=True)), 1.1)]


def _pair() -> tuple[Any, _HandWritten]:
    policy, agent = _policy(), _HandWritten()
    _same_size(policy, agent)
    return policy, agent


def _same_size(ours: nn.Module, peer: nn.Module) -> None:
    sizes = [sum(p.numel() for p in module.parameters()) for module in (ours, peer)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"not the same networks: ours has {sizes[0]} parameters, the peer {sizes[1]}")


def _import_seconds(statement: str) -> float:
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    root = Path(__file__).parents[1]
    return float(subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True).stdout)
