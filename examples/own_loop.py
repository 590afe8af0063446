"""A policy from data in a training loop of your own: REINFORCE with a baseline on CartPole."""

import gymnasium as gym
import torch

import policysmith


def main(episodes: int = 300) -> float:
    env = gym.make("CartPole-v1")
    policy = policysmith.build({"model": {"type": "mlp"}}, env.observation_space, env.action_space, seed=0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    torch.manual_seed(0)
    mean = 0.0
    for episode in range(episodes):
        observations, actions, rewards = play(env, policy, seed=episode)
        returns = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
        log_prob, _, value = policy.evaluate_actions(observations, actions)
        advantage = returns - value.detach()
        loss = -(log_prob * advantage / advantage.std()).mean() + (value - returns).square().mean() / 100
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean += 0.05 * (len(rewards) - mean)
    return mean


def play(env, policy, seed):
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards, done = [], [], [], False
    while not done:
        obs = policy.prepare(observation)
        with torch.no_grad():
            action, _, _ = policy.get_action_and_value(obs)
        observation, reward, terminated, truncated, _ = env.step(action.item())
        observations.append(obs)
        actions.append(action)
        rewards.append(float(reward))
        done = terminated or truncated
    return torch.cat(observations), torch.cat(actions), rewards


if __name__ == "__main__":
    print(f"mean return of the latest episodes: {main():.0f}")
