"""`python -m policysmith.skills.training <run_folder>`: the process in which one skill is trained.

With `--evaluate <episodes>` it is judged instead: whole plans are played, and how they went is printed as JSON.
"""

import json
import sys

from policysmith.errors import CheckpointError, PolicysmithError
from policysmith.skills.runs.run_files import HOPELESS
from policysmith.skills.training.run_setup import RunSetup
from policysmith.skills.training.worker import train_skill


def main(arguments: list[str]) -> int:
    """Returns the exit status."""
    match arguments:
        case [run_folder]:
            return train_skill(run_folder)
        case [run_folder, "--evaluate", episodes] if episodes.isdecimal() and int(episodes) > 0:
            setting = RunSetup(run_folder)
            attempts = setting.evaluate(int(episodes))
            told = {"episodes": len(attempts.plans), "success_rate": attempts.success_rate}
            print(json.dumps({**told, "scores": setting.scores(attempts)}))
            return 0
    raise SystemExit("usage: python -m policysmith.skills.training <run_folder> [--evaluate <episodes>]")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PolicysmithError as error:
        print(error, file=sys.stderr)
        sys.exit(1 if isinstance(error, CheckpointError) else HOPELESS)
