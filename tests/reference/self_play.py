"""Self-play told seat by seat: the slow twin of `SelfPlayCollector` and generalised advantages together."""

import torch

from tests.reference.networks import chosen, slow_actor_critic


def slow_rows(notes, owned, weights, gamma, gae_lambda):
    """What is learnt from a list of plies: (board, action, legal, log_prob, advantage, return) of each move whose
    outcome is known, by a policy with these weights.

    `notes` holds (movers, observations, actions, ply) of each time, `owned` whether the learner was the mover.
    """
    rows = []
    for table in range(len(owned[0])):
        for seat in (0, 1):
            for moves, terminated in _games_of(table, seat, notes, owned, weights):
                rows += _rows_of(moves, terminated, gamma, gae_lambda)
    return rows


def _games_of(table, seat, notes, owned, weights):
    moves = []
    for t, (movers, seen, actions, ply) in enumerate(notes):
        if movers[table] == seat and owned[t][table]:
            moves.append(_move(weights, seen["observation"][table], seen["action_mask"][table], int(actions[table])))
        if moves:
            moves[-1]["reward"] += float(ply.rewards[table][seat])
        if ply.terminated[table] or ply.truncated[table]:
            yield moves, bool(ply.terminated[table])
            moves = []
    yield moves, False


def _move(weights, board, legal, action):
    logits, value = slow_actor_critic(weights, torch.as_tensor(board).flatten())
    log_prob = chosen(logits, action, legal)[0].item()
    known = {"board": board.tolist(), "action": action, "legal": [bool(one) for one in legal]}
    return {**known, "log_prob": log_prob, "value": value.item(), "reward": 0.0}


def _rows_of(moves, terminated, gamma, gae_lambda):
    known = moves if terminated else moves[:-1]
    advantage = 0.0
    for index in reversed(range(len(known))):
        move = known[index]
        after = moves[index + 1]["value"] if index + 1 < len(moves) else 0.0
        delta = move["reward"] + gamma * after - move["value"]
        advantage = delta + gamma * gae_lambda * advantage
        yield move["board"], move["action"], move["legal"], move["log_prob"], advantage, advantage + move["value"]
