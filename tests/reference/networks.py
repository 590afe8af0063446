"""Small policies computed from their weights alone, in float64, and the probabilities of what they choose."""

import torch

from tests.reference.recurrent import slow_lstm

LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def weights_of(policy):
    """{name: float64 copy that learns} of every weight, without the prefix that all share."""
    found = policy.named_parameters()
    return {n.removeprefix("components."): p.detach().double().requires_grad_(p.requires_grad) for n, p in found}


def linear(weights, name, x):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def heads(weights, x):
    """Features → what the heads `policy` and `state_value` give: parameters (P,), value ()."""
    return linear(weights, "policy.out", x), linear(weights, "state_value.out", x)[0]


def slow_trunk(weights, obs):
    """A trunk of one tanh layer under both heads."""
    return heads(weights, torch.tanh(linear(weights, "trunk.0", obs.double())))


def slow_actor_critic(weights, obs):
    """`mlp` with one hidden layer: a trunk of its own for each head."""
    actor = torch.tanh(linear(weights, "actor.0", obs.double()))
    critic = torch.tanh(linear(weights, "critic.0", obs.double()))
    return linear(weights, "policy.out", actor), linear(weights, "state_value.out", critic)[0]


def slow_outcomes(weights, obs):
    """A trunk under an action head, an outcome head and a score head: logits, value, outcome logits, score."""
    x = torch.tanh(linear(weights, "trunk.0", obs.double()))
    wins = linear(weights, "value_logits.fc2", linear(weights, "value_logits.fc1", x).relu())
    score = linear(weights, "score_lead.fc2", linear(weights, "score_lead.fc1", x).relu())[0]
    win, _, loss = wins.softmax(-1)
    return linear(weights, "policy.out", x), win - loss, wins, score


def slow_remembering(weights, observations, first, state=None):
    """An LSTM under both heads over the steps of one row, from `state`: [(logits, value)], and the state after."""
    layer = {name: weights[f"memory.{name}_l0"] for name in LSTM}
    zero = torch.zeros(layer["weight_hh"].shape[1], dtype=torch.float64)
    state = {key: tensor.double() for key, tensor in (state or {"h": zero, "c": zero}).items()}
    told = []
    for obs, begins in zip(observations, first, strict=True):
        state = slow_lstm(obs.double(), {"h": zero, "c": zero} if begins else state, layer)
        told.append(heads(weights, state["h"]))
    return told, state


def chosen(logits, action, legal=None):
    """log-probability and entropy of a choice among the legal ones; both 0 where nothing is legal."""
    indices = [i for i in range(len(logits)) if legal is None or legal[i]]
    if not indices:
        return 0.0 * logits.sum(), 0.0 * logits.sum()
    total = torch.logsumexp(torch.stack([logits[i] for i in indices]), 0)
    entropy = -sum((logits[i] - total).exp() * (logits[i] - total) for i in indices)
    return logits[int(action)] - total, entropy


def drawn(params, action):
    """log-density and entropy of numbers under a Gaussian whose parameters are means, then log-deviations."""
    loc, log_std = params.chunk(2)
    half = 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
    log_prob = -0.5 * ((action.double() - loc) / log_std.exp()) ** 2 - log_std - half
    return log_prob.sum(), (0.5 + half + log_std).sum()
