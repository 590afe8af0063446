"""Stable-Baselines3's PPO on CartPole with its defaults; run by its own venv (setup_sb3.sh), prints one JSON line.

Two venvs cannot share a process, so the caller interleaves runs of this script with runs of ours, a process each and
one torch thread each, and compares medians. The clock covers building the agent and learning, not the imports.
"""

import argparse
import json
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env


def run(num_envs: int, steps: int, seed: int, **options: int) -> dict[str, float]:
    """Train once; `mean_return` is over the last 100 episodes, as SB3 itself reports it."""
    start = time.perf_counter()
    env = make_vec_env("CartPole-v1", n_envs=num_envs, seed=seed)  # a DummyVecEnv
    model = PPO("MlpPolicy", env, verbose=0, device="cpu", seed=seed, **options)
    model.learn(total_timesteps=steps)
    seconds = time.perf_counter() - start
    returns = [episode["r"] for episode in model.ep_info_buffer]
    mean_return = sum(returns) / max(len(returns), 1)
    done = model.num_timesteps
    return {"seconds": seconds, "steps": done, "sps": done / seconds, "mean_return": mean_return}


def main() -> None:
    """Warm up, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(num_envs=1, steps=64, seed=0, n_steps=64)  # pays torch's lazy imports
    print(json.dumps(run(arguments.num_envs, arguments.steps, arguments.seed)))


if __name__ == "__main__":
    main()
