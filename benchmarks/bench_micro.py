"""Small costs: acting, forward, training pass, a node, building 1,000 components, importing.

In: nothing. Out: rows of the result table. What calls policysmith stands first, its hand-written peers second, the
benchmarks last. Both sides always have the same number of parameters; that is checked.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
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


def _policy(shared: bool) -> Any:
    import policysmith

    model = {"type": "mlp", "hidden": [64, 64], "activation": "tanh", "shared": shared}
    return policysmith.build({"model": model}, OBSERVATION_SPACE, ACTION_SPACE, seed=0)


def _graph(config: dict[str, Any]) -> Any:
    import policysmith

    return policysmith.build_model(config, seed=0)


def _parse(text: Path) -> object:
    from policysmith.config.load import load

    return load(text)


def _check(config: dict[str, Any]) -> Any:
    from policysmith.graph.spec import decode_components
    from policysmith.registry import default_registry

    return decode_components(config["components"], default_registry)


def _plan(checked: Any) -> Any:
    from policysmith.graph.plan import TensorSpec, _measure, make_plan

    _measure.cache_clear()  # or only the first call would plan anything
    return make_plan(checked.components, {"x": TensorSpec((WIDTH,))}, lambda path, message: None)


def _build(plan: Any) -> nn.Module:
    from policysmith.compile.model import GraphModel
    from policysmith.graph.assemble import build_modules

    return GraphModel(plan, build_modules(plan, 0), f"c{len(plan.nodes) - 1}")


def _chain_config(specs: list[dict[str, Any]], features: int) -> dict[str, Any]:
    sources = ["x", *(f"c{i}" for i in range(len(specs) - 1))]
    components = {f"c{i}": {**spec, "in_keys": sources[i]} for i, spec in enumerate(specs)}
    return {"format": 1, "inputs": {"x": [features]}, "components": components, "outputs": f"c{len(specs) - 1}"}


# the peers' side


class _Separate(Agent):
    """CleanRL's agent with the plain forward one would add to it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(x), self.critic(x).squeeze(-1)


class _Shared(nn.Module):
    """The same with one trunk: 4 → 64 → 64 → {2, 1}."""

    def __init__(self) -> None:
        super().__init__()
        layers = [layer_init(nn.Linear(4, 64)), nn.Tanh(), layer_init(nn.Linear(64, 64)), nn.Tanh()]
        self.network = nn.Sequential(*layers)
        self.actor, self.critic = layer_init(nn.Linear(64, 2), std=0.01), layer_init(nn.Linear(64, 1), std=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.network(x)
        return self.actor(hidden), self.critic(hidden).squeeze(-1)

    def get_action_and_value(self, x: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden = self.network(x)
        probs = torch.distributions.Categorical(logits=self.actor(hidden))
        if action is None:
            action = probs.sample()
        return action, probs.log_prob(action), probs.entropy(), self.critic(hidden)


def _hand_component(spec: dict[str, Any]) -> nn.Module:
    if spec["type"] == "nn.Linear":
        return layer_init(nn.Linear(WIDTH, spec["out_features"]))
    activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[spec["activation"]]
    layers: list[nn.Module] = []
    for size_in, size_out in zip([WIDTH, *spec["hidden"]], spec["hidden"], strict=False):
        layers += [layer_init(nn.Linear(size_in, size_out)), activation()]
    return nn.Sequential(*layers)


# the benchmarks


NETWORKS = {"4→64→64→{2,1}": True, "separate trunks": False}


def acting() -> list[Row]:
    """Forward, sample, log-probability and value, as a rollout calls them."""

    def row(name: str, shared: bool, batch: int, target: float | None) -> Row:
        policy, agent = _pair(shared)
        act, obs = policy.acting(), torch.randn(batch, 4)

        def peer() -> None:
            with torch.no_grad():
                agent.get_action_and_value(obs)

        return latency(f"acting, {name}, batch {batch}", compare(lambda: act(obs), peer), target)

    bars = {1: 0.25, 64: 0.40}  # set for the shared trunk; the other network is for orientation
    return [row(n, s, b, t if s else None) for n, s in NETWORKS.items() for b, t in bars.items()]


def forward() -> list[Row]:
    """Logits and value without gradients."""

    def row(name: str, shared: bool, batch: int, target: float | None) -> Row:
        policy, agent = _pair(shared)
        obs = torch.randn(batch, 4)
        with torch.no_grad():
            comparison = compare(lambda: policy(obs), lambda: agent(obs))
        return latency(f"forward, {name}, batch {batch}", comparison, target)

    bars = {1: 0.5, 64: 0.75}
    return [row(n, s, b, t if s else None) for n, s in NETWORKS.items() for b, t in bars.items()]


def forward_backward() -> list[Row]:
    """A training pass: the network alone, and with log-probability and entropy as PPO needs them."""
    policy, agent = _pair(shared=False)
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
    """Planned graph to initialised modules, beside the bare modules; the stages before it apart."""
    specs = [REPEATED_SPECS[i % len(REPEATED_SPECS)] for i in range(1000)]
    config = _chain_config(specs, WIDTH)
    checked = _check(config)
    plan = _plan(checked)

    def by_hand() -> nn.Module:
        return nn.ModuleDict({f"c{i}": _hand_component(spec) for i, spec in enumerate(specs)})

    _same_size(_graph(config), by_hand())
    kept: list[nn.Module] = []  # so that no side's clock pays for freeing the model before
    building = compare(lambda: kept.append(_build(plan)), lambda: kept.append(by_hand()), rounds=9, inner=1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "graph.yaml"
        path.write_text(yaml.safe_dump(config))
        stages: dict[str, Callable[[], object]] = {
            "parse YAML": lambda: _parse(path),
            "check": lambda: _check(config),
            "plan": lambda: _plan(checked),
        }
        rows = [Row(f"1,000 components: {name}", duration(time_alone(stage))) for name, stage in stages.items()]
    return [latency("build 1,000 components", building, 2.0), *rows]


def import_time() -> list[Row]:
    """Fresh processes, so that nothing is imported yet; the interpreter's own start is left out."""
    base, ours = "import torch, tensordict", "import torch, tensordict, policysmith"
    _import_seconds(ours)  # fills the disk cache and __pycache__
    pairs = [(_import_seconds(ours), _import_seconds(base)) for _ in range(15)]
    return [latency("import beside torch and tensordict", Comparison(*zip(*pairs, strict=True)), 1.1)]


def _pair(shared: bool) -> tuple[Any, Any]:
    policy, agent = _policy(shared), _Shared() if shared else _Separate()
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
