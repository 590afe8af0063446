"""Learning from recorded episodes one transition at a time: the updates, and the loss of each objective."""

import math
from typing import NamedTuple

import torch

from tests.reference.networks import chosen, drawn, linear, slow_actor_critic, slow_remembering
from tests.reference.optimizers import clip


class Told(NamedTuple):
    """Of one episode: T + 1 observations, T actions, rewards, legal choices (or None), and how it ended."""

    seen: object
    acted: object
    rewards: object
    legal: object
    terminated: bool
    final: bool

    def returns(self, t, gamma):
        return sum(gamma**k * float(reward) for k, reward in enumerate(self.rewards[t:]))


def order_of(seed, epoch, count):
    """The order of an epoch follows from the seed and its number alone."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)).tolist()


def held_out(episodes, share, seed):
    """Which episodes teach, and which only tell how well it goes."""
    count = min(max(round(share * len(episodes)), 1), len(episodes) - 1) if share else 0
    order = order_of(seed, -1, len(episodes))
    return sorted(order[count:]), sorted(order[:count])


def steps_of(episodes, chosen_episodes):
    """Units of a policy without memory: (episode, step)."""
    return [(e, t) for e in chosen_episodes for t in range(len(episodes[e].rewards))]


def windows_of(episodes, chosen_episodes, length, burn_in):
    """Units of a policy with memory: (episode, where the run begins, where the window does, where it ends)."""
    found = []
    for e in chosen_episodes:
        steps = len(episodes[e].rewards)
        for begin in range(0, steps, length or steps):
            found.append((e, max(0, begin - burn_in), begin, min(steps, begin + (length or steps))))
    return found


def slow_offline_learn(weights, optimizer, units, loss, updates, size, seed, rate, max_grad_norm, after=None):
    """`loss(weights, units)` of every batch; `rate(progress)`. Returns the losses."""
    told, per_epoch = [], math.ceil(len(units) / size)
    for update in range(updates):
        epoch, index = divmod(update, per_epoch)
        order = order_of(seed, epoch, len(units))
        value = loss(weights, [units[i] for i in order[index * size : (index + 1) * size]])
        for weight in weights.values():
            weight.grad = None
        value.backward()
        clip(weights, max_grad_norm)
        optimizer.step(weights, rate(update / updates))
        if after is not None:
            after(weights)
        told.append(value.item())
    return told


def looked_at(episodes, start=0, network=slow_actor_critic, wanted=False):
    """(weights, unit) → [(log_prob, entropy, value)]; `wanted` gives the network the return that followed, too."""

    def look(weights, unit):
        episode, t = episodes[unit[0]], unit[1]
        obs = torch.cat([episode.seen[t], torch.tensor([episode.returns(t, 1.0)])]) if wanted else episode.seen[t]
        params, value = network(weights, obs)
        legal = None if episode.legal is None else episode.legal[t]
        if episode.acted.is_floating_point():
            return [(*drawn(torch.cat([params, weights["policy.log_std"]]), episode.acted[t]), value, unit)]
        return [(*chosen(params, episode.acted[t] - start, legal), value, unit)]

    return look


def remembered(episodes, start=0):
    """The same of a window: an LSTM begins it, or its burn-in, with nothing remembered."""

    def look(weights, unit):
        e, run, begin, end = unit
        seen = episodes[e].seen[run:end]
        said, _ = slow_remembering(weights, seen, [False] * len(seen))
        told = zip(range(run, end), said, strict=True)
        return [(*chosen(p, episodes[e].acted[t] - start), v, (e, t)) for t, (p, v) in told if t >= begin]

    return look


def slow_cloning(look, entropy_coef=0.0, penalty=None):
    """Behaviour cloning: the likelihood of what was done, and what entropy is worth."""

    def loss(weights, units):
        rows = [row for unit in units for row in look(weights, unit)]
        value = -sum(row[0] for row in rows) / len(rows) - entropy_coef * sum(row[1] for row in rows) / len(rows)
        return value if penalty is None else value + penalty(weights)

    return loss


def slow_regression(look, episodes, gamma, temperature, max_weight, value_coef, normalize):
    """Advantage-weighted regression (arXiv 1910.00177)."""

    def loss(weights, units):
        rows = [row for unit in units for row in look(weights, unit)]
        returns = [episodes[e].returns(t, gamma) for *_, (e, t) in rows]
        advantages = [r - row[2].item() for r, row in zip(returns, rows, strict=True)]
        if normalize and len(rows) > 1:
            mean = sum(advantages) / len(rows)
            deviation = math.sqrt(sum((a - mean) ** 2 for a in advantages) / (len(rows) - 1))
            advantages = [(a - mean) / (deviation + 1e-5) for a in advantages]
        found = 0.0
        for (log_prob, _, value, _), wanted, advantage in zip(rows, returns, advantages, strict=True):
            weight = min(math.exp(advantage / temperature), max_weight)
            found += -weight * log_prob + value_coef * 0.5 * (value - wanted) ** 2
        return found / len(rows)

    return loss


def slow_implicit_q(episodes, targets, gamma, expectile, inverse_temperature, max_weight, value_coef, start=0, width=3):
    """Implicit Q-learning (arXiv 2110.06169); `targets` are two mappings of weights that only judge.

    The Q networks' weights are among those that learn, under `0.` and `1.`.
    """

    def q(weights, obs, action):
        one_hot = torch.nn.functional.one_hot(action - start, width)
        return slow_actor_critic(weights, torch.cat([obs, one_hot]))[1]

    def loss(weights, units):
        policy = value_loss = 0.0
        errors = []
        for e, t in units:
            episode = episodes[e]
            params, value = slow_actor_critic(weights, episode.seen[t])
            judged = min(q(target, episode.seen[t], episode.acted[t]).item() for target in targets)
            difference = judged - value
            value_loss = value_loss + abs(expectile - float(difference < 0)) * difference**2
            weight = min(math.exp(inverse_temperature * difference.item()), max_weight)
            policy = policy - weight * chosen(params, episode.acted[t] - start)[0]
            last = t == len(episode.rewards) - 1
            if last and not episode.terminated and not episode.final:
                continue  # nobody knows what came after
            after = 0.0 if last and episode.terminated else slow_actor_critic(weights, episode.seen[t + 1])[1].item()
            wanted = float(episode.rewards[t]) + gamma * after
            for network in "01":
                own = {n.removeprefix(f"{network}."): w for n, w in weights.items() if n.startswith(f"{network}.")}
                errors.append((q(own, episode.seen[t], episode.acted[t]) - wanted) ** 2)
        mean_q = sum(errors) / max(len(errors) / 2, 1)
        return policy / len(units) + value_coef * value_loss / len(units) + mean_q

    return loss


def slow_follow(targets, rate):
    """Move the targets a share of the way."""

    def after(weights):
        for network, target in zip("01", targets, strict=True):
            for name in target:
                target[name] = (1 - rate) * target[name] + rate * weights[f"{network}.{name}"].detach()

    return after


def slow_flow(episodes, horizon, draw):
    """Flow matching (arXiv 2210.02747) of action chunks: straight lines from noise, an episode's end repeated."""
    actions = torch.cat([episode.acted for episode in episodes]).double()
    centre = actions.mean(0)
    spread = ((actions - centre) ** 2).mean(0).sqrt()

    def velocity(weights, x, y, time):
        phase = [time * math.pi * 2.0**k for k in range(8)]
        told = [*map(math.sin, phase), *map(math.cos, phase)]
        hidden = linear(weights, "policy.body.0", torch.cat([x, y, torch.tensor(told, dtype=torch.float64)]))
        return linear(weights, "policy.out", hidden * torch.sigmoid(hidden))

    def loss(weights, units):
        width = horizon * len(centre)
        noise = torch.randn(len(units), width, generator=draw).double()
        times = torch.rand(len(units), 1, generator=draw).double()
        total, count = 0.0, 0
        for (e, t), start, time in zip(units, noise, times[:, 0].tolist(), strict=True):
            episode = episodes[e]
            steps = [min(t + h, len(episode.acted) - 1) for h in range(horizon)]
            chunk = torch.cat([(episode.acted[s].double() - centre) / spread for s in steps])
            obs = episode.seen[t].double()
            x = torch.cat([torch.tanh(linear(weights, "trunk.0", obs)), obs])
            error = (velocity(weights, x, (1 - time) * start + time * chunk, time) - (chunk - start)) ** 2
            for h in range(horizon):
                if t + h < len(episode.acted):
                    total, count = total + error[h * len(centre) : (h + 1) * len(centre)].mean(), count + 1
        return total / count

    return loss
