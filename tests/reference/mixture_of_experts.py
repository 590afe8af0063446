"""Mixtures of experts written plainly: a loop over rows, and over the experts of each; a twin of every loss."""

import math

import torch


def scores_of(logits, score):
    """The scores of one row's experts."""
    return torch.softmax(logits, 0) if score == "softmax" else torch.sigmoid(logits)


def mixture(x, router_weight, experts, top_k, score="softmax", normalize=True, bias=None):
    """x (*, D), router_weight (E, D), experts: E functions of (1, D). → y (*, D), and the experts of each row."""
    outputs, chosen_rows = [], []
    for row in x.reshape(-1, x.shape[-1]):
        scores = scores_of(router_weight @ row, score)
        rank = scores.detach() if bias is None else scores.detach() + bias
        chosen = sorted(range(len(experts)), key=lambda e: -float(rank[e]))[:top_k]
        total = sum(scores[e] for e in chosen) if normalize else 1.0
        outputs.append(sum(scores[e] / total * experts[e](row[None])[0] for e in chosen))
        chosen_rows.append(chosen)
    return torch.stack(outputs).view(x.shape) if outputs else x, chosen_rows


def by_table(x, tasks, table, experts):
    """x (N, D), tasks (N,): the mean of what the task's experts make of a row."""
    rows = [
        sum(experts[e](row[None])[0] for e in table[int(task)]) / len(table[int(task)])
        for row, task in zip(x, tasks, strict=True)
    ]
    return torch.stack(rows)


def soft_mixture(x, phi, scale, experts, slots):
    """x (B, T, D), phi (S, D), slot s belongs to expert s // slots."""
    samples = []
    for tokens in x:
        directions = [scale * column / column.norm() for column in phi]
        logits = torch.stack([torch.stack([d @ (t / t.norm()) for d in directions]) for t in tokens])  # (T, S)
        made = []
        for s in range(len(phi)):
            dispatch = torch.softmax(logits[:, s], 0)
            made.append(experts[s // slots](sum(w * t for w, t in zip(dispatch, tokens, strict=True))[None])[0])
        combine = [torch.softmax(row, 0) for row in logits]
        samples.append(torch.stack([sum(w * m for w, m in zip(row, made, strict=True)) for row in combine]))
    return torch.stack(samples)


def losses(x, router_weight, top_k, score="softmax"):
    """(balance, z) by counting: E · Σ_e (share of choices on e) · (mean probability of e), and mean logsumexp²."""
    rows = x.reshape(-1, x.shape[-1])
    num_experts, counts, mean, z = len(router_weight), [0] * len(router_weight), 0.0, 0.0
    for row in rows:
        logits = router_weight @ row
        scores = scores_of(logits, score)
        for e in sorted(range(num_experts), key=lambda e: -float(scores[e].detach()))[:top_k]:
            counts[e] += 1
        mean = mean + scores / scores.sum() / len(rows)
        z = z + torch.log(torch.exp(logits).sum()) ** 2 / len(rows)
    shares = [count / (len(rows) * top_k) for count in counts]
    return num_experts * sum(f * p for f, p in zip(shares, mean, strict=True)), z


def entropy(probabilities):
    """Of one row, in nats."""
    return -sum(p * math.log(p) for p in probabilities.detach().tolist() if p > 0)
