"""What PPO does otherwise for skills, row by row: advantages among the rows of an expert, and each expert's figures."""

import math

SMALLEST, FARTHEST = 32, 5.0


def slow_by_skill(skill_of, valid):
    """Rows with advantages of mean 0 and deviation 1 among those of one expert, or of few, among all that count."""

    def reshape(rows):
        counted = {place: row for place, row in rows.items() if valid[place]}
        told = {}
        for place, row in counted.items():
            own = [r.advantage for p, r in counted.items() if skill_of[p] == skill_of[place]]
            if len(own) < SMALLEST:
                own = [r.advantage for r in counted.values()]
            mean = sum(own) / len(own)
            deviation = math.sqrt(sum((a - mean) ** 2 for a in own) / (len(own) - 1))
            normal = (row.advantage - mean) / (deviation + 1e-8)
            told[place] = row._replace(advantage=max(-FARTHEST, min(FARTHEST, normal)))
        return told

    return reshape


def slow_figures(rows, said, skill):
    """The means over an expert's rows (`skill(place)` says which); `said` is {place: (log_prob, entropy, value)} of
    the policy as it is now.
    """
    own = [place for place in said if skill(place)]
    logs = [said[p][0] - rows[p].log_prob for p in own]
    return {
        "rows": len(own),
        "approx_kl": sum(math.exp(log) - 1 - log for log in logs) / len(own),
        "entropy": sum(said[p][1] for p in own) / len(own),
        "value_loss": sum(0.5 * (said[p][2] - rows[p].returns) ** 2 for p in own) / len(own),
        "advantage": sum(rows[p].advantage for p in own) / len(own),
    }
