"""Whole PPO on CartPole: steps per second and returns, beside CleanRL's loop and Stable-Baselines3.

Runs of both sides alternate in random order over the same seeds. CleanRL's twin shares our process. SB3 lives in its
own venv, so there each run of either side is a process of its own (`python -m benchmarks.bench_ppo JSON` is ours) and
only the clock inside is compared. Every clock covers building and training, not imports; one torch thread each.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Comparison, Row, throughput
from benchmarks.peers import cleanrl_ppo

ROOT = Path(__file__).parents[1]
SB3_PYTHON = ROOT / "benchmarks" / ".venv-sb3" / "bin" / "python"
SEEDS = range(1, 6)

SHARED = {"gamma": 0.99, "gae_lambda": 0.95, "clip": 0.2, "value_coef": 0.5, "max_grad_norm": 0.5}
CLEANRL = {"rollout_steps": 128, "epochs": 4, "minibatches": 4, "learning_rate": {"type": "linear", "start": 2.5e-4}}
CLEANRL |= {**SHARED, "value_clip": 0.2, "entropy_coef": 0.01, "normalize_advantage": True}
SB3 = {"rollout_steps": 2048, "epochs": 10, "learning_rate": 3e-4}  # and minibatches of 64 rows
SB3 |= {**SHARED, "value_clip": None, "entropy_coef": 0.0, "normalize_advantage": True}


@dataclass(frozen=True)
class Run:
    """One training: wall seconds, steps taken, and the mean return of its last episodes."""

    seconds: float
    steps: int
    mean_return: float


def ppo_cleanrl() -> list[Row]:
    """Beside CleanRL's loop at its settings, in this process."""
    torch.set_num_threads(1)
    _ours_cleanrl(4, 1024, 0), _cleanrl(4, 1024, 0)  # pays lazy imports on both sides
    few = _alternate(_ours_cleanrl, _cleanrl, num_envs=4, steps=98 * 512, seeds=SEEDS)
    many = _alternate(_ours_cleanrl, _cleanrl, num_envs=64, steps=12 * 8192, seeds=SEEDS)
    return [
        _speed("PPO CartPole, CleanRL's settings, 4 environments", few, 1.8),
        _speed("PPO CartPole, CleanRL's settings, 64 environments", many, 1.2),
        returns_row("return in the last 20 % of 50k steps, CleanRL's settings, 5 seeds", few),
    ]


def ppo_sb3() -> list[Row]:
    """Beside Stable-Baselines3 at its settings, a process per run."""
    subprocess.run(["sh", ROOT / "benchmarks" / "peers" / "setup_sb3.sh"], check=True)
    few = _alternate(_ours_sb3, _sb3, num_envs=4, steps=6 * 8192, seeds=SEEDS)
    many = _alternate(_ours_sb3, _sb3, num_envs=64, steps=131_072, seeds=SEEDS[:3])
    return [
        _speed("PPO CartPole, SB3's settings, 4 environments", few, 1.8),
        _speed("PPO CartPole, SB3's settings, 64 environments", many, 1.2),
        returns_row("return of the last 100 episodes of 49k steps, SB3's settings, 5 seeds", few),
    ]


def returns_row(name: str, pairs: list[tuple[Run, Run]]) -> Row:
    """Mean ± standard deviation over seeds; the bar of equal returns holds when the interval reaches 1."""
    sides = [[run.mean_return for run in side] for side in zip(*pairs, strict=True)]
    means, deviations = [statistics.mean(x) for x in sides], [statistics.stdev(x) for x in sides]
    ratio = means[0] / means[1]
    variances = [(deviation / mean) ** 2 / len(pairs) for mean, deviation in zip(means, deviations, strict=True)]
    margin = 2.31 * ratio * sum(variances) ** 0.5  # Student's t at 2 x 5 - 2 degrees of freedom
    ours, peer = (f"{mean:.0f} ± {deviation:.0f}" for mean, deviation in zip(means, deviations, strict=True))
    return Row(name, ours, peer, ratio, ratio - margin, ratio + margin, 1.0, "higher")


def _alternate(ours: Callable, peer: Callable, *, num_envs: int, steps: int, seeds: range) -> list[tuple[Run, Run]]:
    pairs, coin = [], random.Random(0)
    for seed in seeds:
        runs = {}
        for side in coin.sample([ours, peer], 2):
            runs[side] = side(num_envs, steps, seed)
        pairs.append((runs[ours], runs[peer]))
    return pairs


def _speed(name: str, pairs: list[tuple[Run, Run]], target: float) -> Row:
    steps = {run.steps for pair in pairs for run in pair}
    if len(steps) != 1:
        raise ValueError(f"the sides took different numbers of steps: {sorted(steps)}")
    ours, peer = (tuple(run.seconds for run in side) for side in zip(*pairs, strict=True))
    return throughput(name, Comparison(ours, peer), target, steps=steps.pop())


# our side


def experiment(num_envs: int, steps: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The experiment file of one run."""
    return {
        "format": 1,
        "seed": seed,
        "environment": {"id": "CartPole-v1", "num_envs": num_envs},
        "model": {"type": "mlp", "hidden": [64, 64], "activation": "tanh"},
        "training": {"type": "ppo", "total_steps": steps, **settings},
    }


def _train(config: dict[str, Any]) -> tuple[float, int, list[tuple[int, float]]]:
    import policysmith

    start = time.perf_counter()
    result = policysmith.train(config, output=None, progress=False, evaluate=False)
    return time.perf_counter() - start, result.steps, list(result.returns)


def _ours_cleanrl(num_envs: int, steps: int, seed: int) -> Run:
    seconds, done, returns = _train(experiment(num_envs, steps, seed, CLEANRL))
    return Run(seconds, done, _mean_at_end(returns, steps))


def _ours_sb3(num_envs: int, steps: int, seed: int) -> Run:
    config = experiment(num_envs, steps, seed, {**SB3, "minibatches": 2048 * num_envs // 64})
    return _run_process([sys.executable, "-m", "benchmarks.bench_ppo", json.dumps(config)])


def main() -> None:
    """Run the experiment given as JSON and print one JSON line, as peers/sb3_ppo.py does."""
    torch.set_num_threads(1)
    config = json.loads(sys.argv[1])
    _train(experiment(1, 64, 0, {**SB3, "rollout_steps": 64, "minibatches": 1}))  # pays lazy imports
    seconds, steps, returns = _train(config)
    mean_return = statistics.mean(value for _, value in returns[-100:])
    print(json.dumps({"seconds": seconds, "steps": steps, "sps": steps / seconds, "mean_return": mean_return}))


# the peers' side


def _cleanrl(num_envs: int, steps: int, seed: int) -> Run:
    start = time.perf_counter()
    result = cleanrl_ppo.train(steps, num_envs, seed)
    return Run(time.perf_counter() - start, result["steps"], _mean_at_end(result["returns"], steps))


def _sb3(num_envs: int, steps: int, seed: int) -> Run:
    arguments = {"--num-envs": num_envs, "--steps": steps, "--seed": seed}
    words = [str(word) for pair in arguments.items() for word in pair]
    return _run_process([str(SB3_PYTHON), "benchmarks/peers/sb3_ppo.py", *words])


def _run_process(command: list[str]) -> Run:
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    line = json.loads(output.splitlines()[-1])
    return Run(line["seconds"], line["steps"], line["mean_return"])


def _mean_at_end(returns: list[tuple[int, float]], steps: int) -> float:
    return statistics.mean(value for step, value in returns if step > 0.8 * steps)


if __name__ == "__main__":
    main()
