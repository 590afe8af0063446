"""Self-play told seat by seat: the slow twin of `SelfPlayCollector` and generalised advantages together."""


def slow_rows(notes, owned, values, gamma, gae_lambda):
    """What is learnt from a list of plies: (board, action, advantage, return) of each move whose outcome is known.

    `notes` holds (movers, observations, actions, ply) of each time, `owned` whether the learner was the mover.
    """
    rows = []
    for table in range(len(values[0])):
        for seat in (0, 1):
            for moves, terminated in _games_of(table, seat, notes, owned, values):
                rows += _rows_of(moves, terminated, gamma, gae_lambda)
    return rows


def _games_of(table, seat, notes, owned, values):
    moves = []
    for t, (movers, seen, actions, ply) in enumerate(notes):
        if movers[table] == seat and owned[t][table]:
            board = seen["observation"][table].tolist()
            moves.append({"board": board, "action": int(actions[table]), "value": values[t][table], "reward": 0.0})
        if moves:
            moves[-1]["reward"] += float(ply.rewards[table][seat])
        if ply.terminated[table] or ply.truncated[table]:
            yield moves, bool(ply.terminated[table])
            moves = []
    yield moves, False


def _rows_of(moves, terminated, gamma, gae_lambda):
    known = moves if terminated else moves[:-1]
    advantage = 0.0
    for index in reversed(range(len(known))):
        move = known[index]
        after = moves[index + 1]["value"] if index + 1 < len(moves) else 0.0
        delta = move["reward"] + gamma * after - move["value"]
        advantage = delta + gamma * gae_lambda * advantage
        yield move["board"], move["action"], advantage, advantage + move["value"]
