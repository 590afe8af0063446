"""From recorded episodes to a policy that learns on by doing: image and joints in, chunks of actions out.

python examples/visuomotor/run.py
"""

import sys
import tempfile
from pathlib import Path

import policysmith
from policysmith import api
from policysmith.registry import load_plugin_file

HERE = Path(__file__).parent


def main(output: Path, episodes: int = 400, offline: tuple[str, ...] = (), online: tuple[str, ...] = ()):
    """Returns the mean return of expert, clone and what the clone became; the policies lie in `output`."""
    load_plugin_file(HERE / "arm.py")
    policysmith.save(policysmith.build(HERE / "expert.yaml"), output / "expert")
    api.record(output / "expert", output / "data", episodes)
    place = f"training.dataset={{type: memmap, path: {output / 'data'}}}"
    clone = api.train_offline(HERE / "offline.yaml", [place, *offline], output=output / "trained", progress=False)
    better = api.train(HERE / "online.yaml", online, output=output / "better", progress=False, base_dir=output)
    scores = {
        "expert": api.evaluate(output / "expert").mean,
        "clone": clone.evaluation.mean,
        "better": better.evaluation.mean,
    }
    for name, score in scores.items():
        print(f"{name:7} {score:7.2f}")
    return scores


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder))
