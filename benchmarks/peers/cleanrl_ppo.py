"""A twin of CleanRL's ppo.py on today's gymnasium: what a researcher would otherwise write by hand.

The package itself drags old dependencies. Same steps, hyper-parameters, network and bookkeeping as the original;
TensorBoard and printing are off unless `log_dir` is given. In: steps, environments, seed. Out: time and returns.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical


@dataclass(frozen=True)
class Settings:
    """CleanRL's defaults for CartPole."""

    learning_rate: float = 2.5e-4
    num_steps: int = 128
    gamma: float = 0.99
    gae_lambda: float = 0.95
    num_minibatches: int = 4
    update_epochs: int = 4
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5


class Rollout(NamedTuple):
    """Tensors of one rollout, time first: (T, B, ...)."""

    obs: Tensor
    actions: Tensor
    logprobs: Tensor
    rewards: Tensor
    dones: Tensor
    values: Tensor


def layer_init(layer: nn.Linear, std: float = 2**0.5, bias: float = 0.0) -> nn.Linear:
    """Orthogonal weight with gain `std`, constant bias."""
    nn.init.orthogonal_(layer.weight, std)
    nn.init.constant_(layer.bias, bias)
    return layer


def _network(num_inputs: int, num_outputs: int, std: float) -> nn.Sequential:
    return nn.Sequential(
        layer_init(nn.Linear(num_inputs, 64)),
        nn.Tanh(),
        layer_init(nn.Linear(64, 64)),
        nn.Tanh(),
        layer_init(nn.Linear(64, num_outputs), std=std),
    )


class Agent(nn.Module):
    """Separate critic and actor of 64-64 tanh units."""

    def __init__(self, num_inputs: int = 4, num_actions: int = 2):
        super().__init__()
        self.critic = _network(num_inputs, 1, std=1.0)
        self.actor = _network(num_inputs, num_actions, std=0.01)

    def get_value(self, x: Tensor) -> Tensor:
        """Value (B, 1)."""
        return self.critic(x)

    def get_action_and_value(self, x: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Action, log-probability and entropy (B,), value (B, 1)."""
        logits = self.actor(x)
        probs = Categorical(logits=logits)
        if action is None:
            action = probs.sample()
        return action, probs.log_prob(action), probs.entropy(), self.critic(x)


def train(
    total_timesteps: int,
    num_envs: int = 4,
    seed: int = 1,
    settings: Settings | None = None,
    log_dir: str | None = None,
) -> dict[str, Any]:
    """Train on CartPole-v1; `returns` lists (step, episodic return)."""
    s = settings or Settings()
    random.seed(seed)
    np.random.seed(seed)  # the original shuffles with NumPy's global generator
    torch.manual_seed(seed)
    envs = SyncVectorEnv([_make_env() for _ in range(num_envs)], autoreset_mode=AutoresetMode.SAME_STEP)
    agent = Agent(4, 2)
    optimizer = torch.optim.Adam(agent.parameters(), lr=s.learning_rate, eps=1e-5)
    buffer = _allocate(s.num_steps, num_envs)
    log = _logger(log_dir)
    returns: list[tuple[int, float]] = []
    num_iterations = total_timesteps // (s.num_steps * num_envs)
    start = time.perf_counter()
    next_obs = torch.Tensor(envs.reset(seed=seed)[0])
    next_done = torch.zeros(num_envs)
    for iteration in range(num_iterations):
        learning_rate = (1.0 - iteration / num_iterations) * s.learning_rate
        optimizer.param_groups[0]["lr"] = learning_rate
        step = iteration * s.num_steps * num_envs
        next_obs, next_done = _collect(envs, agent, buffer, (next_obs, next_done), (step, returns, log))
        advantages = _advantages(agent, buffer, next_obs, next_done, s)
        metrics = _update(agent, optimizer, buffer, advantages, s)
        step += s.num_steps * num_envs
        metrics["charts/learning_rate"] = learning_rate
        metrics["charts/SPS"] = int(step / (time.perf_counter() - start))
        log(metrics, step)
    seconds = time.perf_counter() - start
    envs.close()
    steps = num_iterations * s.num_steps * num_envs
    return {"seconds": seconds, "steps": steps, "sps": steps / seconds, "returns": returns}


def _make_env() -> Callable[[], gym.Env]:
    return lambda: gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1"))


def _allocate(num_steps: int, num_envs: int) -> Rollout:
    shape = (num_steps, num_envs)
    return Rollout(torch.zeros((*shape, 4)), *(torch.zeros(shape) for _ in range(5)))


def _logger(log_dir: str | None) -> Callable[[dict[str, float], int], None]:
    if log_dir is None:
        return lambda metrics, step: None
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(log_dir)

    def write(metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    return write


def _collect(envs, agent, buffer, start, episodes) -> tuple[Tensor, Tensor]:
    (next_obs, next_done), (global_step, returns, log) = start, episodes
    obs, actions, logprobs, rewards, dones, values = buffer
    for step in range(len(obs)):
        global_step += envs.num_envs
        obs[step] = next_obs
        dones[step] = next_done
        with torch.no_grad():
            action, logprob, _, value = agent.get_action_and_value(next_obs)
            values[step] = value.flatten()
        actions[step] = action
        logprobs[step] = logprob
        observation, reward, terminations, truncations, infos = envs.step(action.cpu().numpy())
        done = np.logical_or(terminations, truncations)
        rewards[step] = torch.tensor(reward).view(-1)
        next_obs, next_done = torch.Tensor(observation), torch.Tensor(done)
        if "final_info" in infos:
            episode = infos["final_info"]["episode"]
            for index in np.flatnonzero(episode["_r"]):
                returns.append((global_step, float(episode["r"][index])))
                log({"charts/episodic_return": episode["r"][index]}, global_step)
                log({"charts/episodic_length": episode["l"][index]}, global_step)
    return next_obs, next_done


@torch.no_grad()
def _advantages(agent: Agent, buffer: Rollout, next_obs: Tensor, next_done: Tensor, s: Settings) -> Tensor:
    _, _, _, rewards, dones, values = buffer
    next_value = agent.get_value(next_obs).reshape(1, -1)
    advantages = torch.zeros_like(rewards)
    last = 0
    for t in reversed(range(len(rewards))):
        is_last = t == len(rewards) - 1
        nonterminal = 1.0 - (next_done if is_last else dones[t + 1])
        following = next_value if is_last else values[t + 1]
        delta = rewards[t] + s.gamma * following * nonterminal - values[t]
        advantages[t] = last = delta + s.gamma * s.gae_lambda * nonterminal * last
    return advantages


def _update(agent: Agent, optimizer, buffer: Rollout, advantages: Tensor, s: Settings) -> dict[str, float]:
    b_obs = buffer.obs.reshape(-1, 4)
    b_actions, b_logprobs, b_values = (x.reshape(-1) for x in (buffer.actions, buffer.logprobs, buffer.values))
    b_advantages = advantages.reshape(-1)
    b_returns = (advantages + buffer.values).reshape(-1)
    indices, size = np.arange(len(b_obs)), len(b_obs) // s.num_minibatches
    clipfracs = []
    for _ in range(s.update_epochs):
        np.random.shuffle(indices)
        for start in range(0, len(indices), size):
            mb = indices[start : start + size]
            _, newlogprob, entropy, newvalue = agent.get_action_and_value(b_obs[mb], b_actions.long()[mb])
            logratio = newlogprob - b_logprobs[mb]
            ratio = logratio.exp()
            with torch.no_grad():
                old_approx_kl = (-logratio).mean()
                approx_kl = ((ratio - 1) - logratio).mean()
                clipfracs += [((ratio - 1.0).abs() > s.clip_coef).float().mean().item()]
            mb_advantages = b_advantages[mb]
            mb_advantages = (mb_advantages - mb_advantages.mean()) / (mb_advantages.std() + 1e-8)
            pg_loss1 = -mb_advantages * ratio
            pg_loss2 = -mb_advantages * torch.clamp(ratio, 1 - s.clip_coef, 1 + s.clip_coef)
            pg_loss = torch.max(pg_loss1, pg_loss2).mean()
            v_loss = _value_loss(newvalue.view(-1), b_values[mb], b_returns[mb], s.clip_coef)
            entropy_loss = entropy.mean()
            loss = pg_loss - s.ent_coef * entropy_loss + v_loss * s.vf_coef
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), s.max_grad_norm)
            optimizer.step()
    return {
        "losses/value_loss": v_loss.item(),
        "losses/policy_loss": pg_loss.item(),
        "losses/entropy": entropy_loss.item(),
        "losses/old_approx_kl": old_approx_kl.item(),
        "losses/approx_kl": approx_kl.item(),
        "losses/clipfrac": float(np.mean(clipfracs)),
        "losses/explained_variance": _explained_variance(b_values.numpy(), b_returns.numpy()),
    }


def _value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip_coef: float) -> Tensor:
    clipped = old_value + torch.clamp(value - old_value, -clip_coef, clip_coef)
    return 0.5 * torch.max((value - target) ** 2, (clipped - target) ** 2).mean()


def _explained_variance(predicted: np.ndarray, target: np.ndarray) -> float:
    variance = np.var(target)
    return float("nan") if variance == 0 else float(1 - np.var(target - predicted) / variance)
