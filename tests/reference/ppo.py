"""PPO one row at a time: its loss, and a whole update as nested loops over processes, epochs, minibatches and rows."""

import math
from typing import NamedTuple

import torch

from tests.reference.advantages import slow_advantages
from tests.reference.networks import chosen, slow_remembering
from tests.reference.optimizers import clip as clip_gradients


def slow_ppo_terms(log_prob, entropy, value, old_log_prob, advantage, returns, old_value, clip, value_clip):
    """Means over rows: the clipped surrogate, half the squared error, the entropy."""
    rows = range(len(log_prob))
    policy, error = 0.0, 0.0
    for i in rows:
        ratio = (log_prob[i] - old_log_prob[i]).exp()
        limited = min(max(ratio, 1 - clip), 1 + clip)
        policy -= min(ratio * advantage[i], limited * advantage[i])
        plain = (value[i] - returns[i]) ** 2
        if value_clip is not None:
            near = old_value[i] + min(max(value[i] - old_value[i], -value_clip), value_clip)
            plain = max(plain, (near - returns[i]) ** 2)
        error += 0.5 * plain
    count = len(log_prob)
    return policy / count, error / count, sum(entropy) / count


class Share(NamedTuple):
    """What one process learns from, and the seed (or generator) from which it draws its order."""

    rollout: object
    seed: object


class Row(NamedTuple):
    """One transition: what was known when it was made."""

    place: tuple
    log_prob: float
    advantage: float
    returns: float
    value: float


def slow_ppo_update(weights, optimizer, shares, units_of, look, *, rate, clip, epochs, minibatches, gamma, gae_lambda,
                    accumulate=1, entropy_coef=0.0, value_coef=0.5, value_clip=None, max_grad_norm=None, normalize=True,
                    target_kl=None, penalty=None, average=None, outcomes=None, smallest=1,
                    reshape=lambda rows: rows):  # fmt: skip
    """All epochs. `units_of(rollout)` → places to be shuffled; `look(weights, rollout, unit)` → {place: what the
    network says there}; `reshape` may change the rows, of which no part has less
    than `smallest`. Returns the epochs run and the terms of the last part looked at.
    """
    rows = [reshape(slow_rows(share.rollout, gamma, gae_lambda)) for share in shares]
    run = 0
    draws = [s.seed if isinstance(s.seed, torch.Generator) else torch.Generator().manual_seed(s.seed) for s in shares]
    for _ in range(epochs):
        run += 1
        cuts = []
        for share, draw in zip(shares, draws, strict=True):
            units = units_of(share.rollout)
            order = [units[i] for i in torch.randperm(len(units), generator=draw).tolist()]
            count = min(minibatches, max(1, len(units) // smallest))
            cuts.append([sliced(batch, accumulate) for batch in sliced(order, count)])
        for k in range(minibatches):
            found = []  # (share, part, row, what the network says)
            for s, groups in enumerate(cuts):
                for p, part in enumerate(groups[k] if k < len(groups) else []):
                    for unit in part:
                        seen = look(weights, shares[s].rollout, unit)
                        found += [(s, p, rows[s][place], said) for place, said in seen.items()]
            if not found:
                break
            advantages = torch.tensor([row.advantage for _, _, row, _ in found], dtype=torch.float64)
            if normalize and len(found) > 1:
                deviation = (((advantages - advantages.mean()) ** 2).sum() / (len(found) - 1)) ** 0.5
                advantages = (advantages - advantages.mean()) / (deviation + 1e-8)
            told = [(s, p, row, said, a) for (s, p, row, said), a in zip(found, advantages, strict=True)]
            policy, value, entropy = terms_of(told, shares, clip, value_clip)
            loss = (
                policy + (value_coef * value if outcomes is None else outcomes(told, shares)) - entropy_coef * entropy
            )
            for weight in weights.values():
                weight.grad = None
            (loss if penalty is None else loss + penalty(weights)).backward()
            clip_gradients(weights, max_grad_norm)
            optimizer.step(weights, rate)
            if average is not None:
                average.follow(weights)
            last = [row for row in told if row[:2] == told[-1][:2]]
        logs = [chosen_at(said, row, shares[s])[0].item() - row.log_prob for s, _, row, said, _ in last]
        kl = sum(math.exp(log) - 1 - log for log in logs) / len(logs)
        if target_kl is not None and kl > target_kl:
            break
    policy, value, entropy = (term.item() for term in terms_of(last, shares, clip, value_clip))
    clipped = sum(abs(math.exp(log) - 1) > clip for log in logs) / len(logs)
    return {"charts/epochs": run, "losses/approx_kl": kl, "losses/policy_loss": policy, "losses/value_loss": value,
            "losses/entropy": entropy, "losses/clipfrac": clipped}  # fmt: skip


def sliced(units, count):
    """At most `count` pieces of the same size, but for the last."""
    size = math.ceil(len(units) / count)
    return [units[i : i + size] for i in range(0, len(units), size)]


def slow_rows(rollout, gamma, gae_lambda):
    """{(t, n): Row} of every transition."""
    names = ("rewards", "values", "next_values", "terminated", "done")
    advantages = slow_advantages(*(getattr(rollout, name).numpy() for name in names), gamma, gae_lambda)
    rows = {}
    for (t, n), advantage in [
        ((t, n), advantages[t, n]) for t, n in torch.ones_like(rollout.rewards).nonzero().tolist()
    ]:
        value = float(rollout.values[t, n])
        rows[t, n] = Row((t, n), float(rollout.log_probs[t, n]), advantage, advantage + value, value)
    return rows


def chosen_at(said, row, share):
    """log-probability and entropy of the action taken there."""
    legal = share.rollout.masks[0][row.place] if share.rollout.masks else None
    return chosen(said[0], share.rollout.actions[0][row.place], legal)


def terms_of(told, shares, clip, value_clip):
    """The three terms of rows (share, part, row, what the network says, advantage)."""
    log_probs, entropies = zip(*(chosen_at(said, row, shares[s]) for s, _, row, said, _ in told), strict=True)
    _, _, rows, said, advantages = zip(*told, strict=True)
    old = [[getattr(row, name) for row in rows] for name in ("log_prob", "returns", "value")]
    values = [each[1] for each in said]
    return slow_ppo_terms(log_probs, entropies, values, old[0], advantages, old[1], old[2], clip, value_clip)


def each_row(rollout):
    """Every transition that counts."""
    steps, width = rollout.rewards.shape
    return [(t, n) for t in range(steps) for n in range(width) if rollout.valid is None or rollout.valid[t, n]]


def looked_at(network):
    """How a memoryless network is asked: row by row."""
    return lambda weights, rollout, place: {place: network(weights, rollout.observations[0][place])}


def each_sequence(length):
    """Chunks of time of every environment, by where they begin."""
    return lambda rollout: [
        (t, n) for t in range(0, len(rollout.rewards), length) for n in range(rollout.rewards.shape[1])
    ]


def remembered(length, burn_in):
    """How an LSTM is asked: through a chunk from the state it acted with, or made anew over the steps before it."""

    def look(weights, rollout, unit):
        start, n = unit
        begin = max(0, start - burn_in)
        state = {key.split("/")[1]: tensor[n, 0] for key, tensor in rollout.states[begin].items()}
        seen, first = rollout.observations[0][:, n], rollout.first[:, n]
        fixed = {name: weight.detach() for name, weight in weights.items()}
        _, state = slow_remembering(fixed, seen[begin:start], first[begin:start], state)
        said, _ = slow_remembering(weights, seen[start : start + length], first[start : start + length], state)
        places = [(start + t, n) for t in range(length)]
        return {p: s for p, s in zip(places, said, strict=True) if rollout.valid is None or rollout.valid[p]}

    return look


def slow_outcome_loss(outcome_coef, score_coef):
    """Cross-entropy of how each row's game ended, and squared error of its score, over the rows that know."""

    def loss(told, shares):
        wins, errors = [], []
        for s, _, row, (_, _, logits, score), _ in told:
            rollout, (t, n) = shares[s].rollout, row.place
            end = next((e for e in range(t, len(rollout.done)) if rollout.done[e, n]), None)
            if end is not None and rollout.terminated[end, n]:
                label = {1.0: 0, 0.0: 1, -1.0: 2}[float(rollout.rewards[end, n].sign())]
                wins.append(torch.logsumexp(logits, 0) - logits[label])
                if rollout.scores is not None and not rollout.scores[end, n].isnan():
                    errors.append((score - float(rollout.scores[end, n])) ** 2)
        return outcome_coef * _mean(wins) + score_coef * _mean(errors)

    return loss


def _mean(terms):
    return sum(terms) / max(len(terms), 1)
