"""The actor-critic tower at the size it is played with: building, passes, masked sampling, memory.

In: nothing. Out: rows of the result table. The peer is the plain tower that the tests compare with, and
`torch.distributions.Categorical`.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Categorical

from benchmarks.harness import Row, compare, latency
from tests.reference.res_tower import ResTower

CHANNELS, ACTIONS, DEPTH, WIDTH, RATIO = 46, 13_527, 9, 256, 0.25  # shogi
BATCH = 8
SAMPLED = 256  # rows of the sampling benchmark
LEGAL = 0.01  # part of the moves that is legal
MEMORY_TARGET = 2.0  # GiB
PASS = """
import resource, sys, tempfile, torch, policysmith
torch.set_num_threads(1)
model = policysmith.model_factory("resnet", ({channels}, 9, 9), {actions}, {depth}, {width}, {ratio})
logits, value = model(torch.randn(32, {channels}, 9, 9))
(logits.square().mean() + value.square().mean()).backward()
with tempfile.TemporaryDirectory() as folder:
    policysmith.save(model, f"{{folder}}/tower")
    policysmith.load(f"{{folder}}/tower")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _ours() -> Any:
    from policysmith.dialects.keisei.names import ActorCriticResTower
    from policysmith.graph import plan

    plan._measure.cache_clear()  # or only the first build would plan anything
    return ActorCriticResTower(CHANNELS, ACTIONS, DEPTH, WIDTH, RATIO)


def _by_hand() -> nn.Module:
    """The plain tower, started as ours."""
    tower = ResTower(CHANNELS, ACTIONS, DEPTH, WIDTH, RATIO)
    gains = {tower.policy_head[-1]: 0.01, tower.value_head[-1]: 1.0}
    for layer in tower.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight, gains.get(layer, 2**0.5))
            nn.init.zeros_(layer.bias)
    return tower


def tower_creation() -> list[Row]:
    """From arguments to initialised weights: checked and planned, beside the bare modules."""
    kept: list[nn.Module] = [_ours(), _by_hand()]  # so that no side's clock pays for freeing the model before
    sizes = [sum(p.numel() for p in model.parameters()) for model in kept]
    if sizes[0] != sizes[1]:
        raise ValueError(f"not the same networks: {sizes[0]} and {sizes[1]} parameters")
    comparison = compare(lambda: kept.append(_ours()), lambda: kept.append(_by_hand()), rounds=9, inner=1)
    return [latency(f"build the {DEPTH}×{WIDTH} tower", comparison, 1.1)]


def tower_passes() -> list[Row]:
    """Forward in evaluation mode, forward and backward in training mode."""
    ours, peer = _ours(), _by_hand()
    obs = torch.randn(BATCH, CHANNELS, 9, 9)

    def backward(model: nn.Module) -> None:
        model.zero_grad()
        logits, value = model(obs)
        (logits.square().mean() + value.square().mean()).backward()

    training = compare(lambda: backward(ours), lambda: backward(peer), rounds=15, inner=1)
    ours.eval(), peer.eval()
    with torch.no_grad():
        acting = compare(lambda: ours(obs), lambda: peer(obs), rounds=31, inner=1)
    name = f"{DEPTH}×{WIDTH} tower, batch {BATCH}"
    return [latency(f"forward, {name}", acting, 1.02), latency(f"forward + backward, {name}", training, 1.02)]


def tower_sampling() -> list[Row]:
    """A legal move for each row, its log-probability, and the entropy."""
    from policysmith.policy.actions import ActionDistribution

    actions = ActionDistribution(spaces.Discrete(ACTIONS))
    logits, mask = torch.randn(SAMPLED, ACTIONS), torch.rand(SAMPLED, ACTIONS) < LEGAL
    lowest = torch.finfo(logits.dtype).min

    def ours() -> tuple[Tensor, Tensor, Tensor]:
        (move,), log_prob = actions.choose(logits, [mask])
        return move, log_prob, actions.evaluate(logits, [move], [mask])[1]

    def peer() -> tuple[Tensor, Tensor, Tensor]:
        moves = Categorical(logits=logits.masked_fill(~mask, lowest))
        move = moves.sample()
        return move, moves.log_prob(move), moves.entropy()

    with torch.no_grad():
        comparison = compare(ours, peer, rounds=15, inner=1)
    return [latency(f"masked sampling of {ACTIONS:,} actions, batch {SAMPLED}", comparison, 0.6)]


def tower_memory() -> list[Row]:
    """Peak memory of a fresh process: build, forward and backward of 32 boards, save, load."""
    code = PASS.format(channels=CHANNELS, actions=ACTIONS, depth=DEPTH, width=WIDTH, ratio=RATIO)
    root = Path(__file__).parents[1]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout
    used = int(found) / 2**20  # KiB → GiB
    share = used / MEMORY_TARGET
    name = "peak memory: build, pass of 32, save, load"
    return [Row(name, f"{used:.2f} GiB", f"{MEMORY_TARGET:.0f} GiB allowed", share, share, share, 1.0)]
