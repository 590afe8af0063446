"""Record a trained CartPole policy, clone it from the recording, and compare the two.

python examples/clone_cartpole.py
"""

import tempfile
from pathlib import Path

from policysmith import api


def main(total_steps: int = 60_000, episodes: int = 30) -> dict[str, float]:
    """Returns the mean return of teacher and clone."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        teacher = api.train("cartpole", [f"training.total_steps={total_steps}"], progress=False)
        api.record(teacher.policy, data, episodes, random_share=0.1)
        clone = api.train_offline(
            {
                "seed": 1,
                "environment": {"id": "CartPole-v1"},
                "model": {"type": "mlp", "hidden": [32]},  # a smaller network than the teacher's
                "training": {"type": "offline", "objective": "bc", "epochs": 20, "learning_rate": 3e-3},
            },
            [f"training.dataset={{type: memmap, path: {data}}}"],
            progress=False,
        )
    assert teacher.evaluation is not None and clone.evaluation is not None
    scores = {"teacher": teacher.evaluation.mean, "clone": clone.evaluation.mean}
    for name, score in scores.items():
        print(f"{name:8} {score:6.1f}")
    return scores


if __name__ == "__main__":
    main()
