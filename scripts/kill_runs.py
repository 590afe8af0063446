"""Kill training runs by SIGKILL at random moments, resume them to their end, and compare with runs never stopped.

    python scripts/kill_runs.py [--kills 100] [--seed 0] [--kind games]

Each kind of run is trained whole once. Others are killed between their first checkpoint and their last save, resumed,
some of them killed again, until they end: weights, moments, generators, counts, histories and logs must be those of the
whole run, bit for bit, and what differs is named. After each kill what lies in the folder must load.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.training.run.killed_runs import KINDS, kill


def main() -> int:
    """Print a line a kind; the exit status is the number of kinds that differ."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="between the first checkpoint and the last save, in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--kind", choices=KINDS, action="append", help="one kind alone; may be given several times")
    options = parser.parse_args()
    kinds, dice = options.kind or list(KINDS), random.Random(options.seed)
    different = between = runs = 0
    for index, kind in enumerate(kinds):
        share = options.kills * (index + 1) // len(kinds) - options.kills * index // len(kinds)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = kill(kind, share, Path(folder), dice)
        told = f"DIFFERENT: {', '.join(found.unlike)}" if found.unlike else "alike"
        print(
            f"{kind:22} {found.kills:3} kills: {found.before} before a first checkpoint, {found.between} in between, "
            f"{found.after} after the end; {found.runs} runs, {time.monotonic() - began:.0f} s: {told}",
            flush=True,
        )
        different, between, runs = different + bool(found.unlike), between + found.between, runs + found.runs
    print(f"{between} resumes in the middle of {runs} runs of {len(kinds)} kinds; {different} kinds different")
    return different


if __name__ == "__main__":
    sys.exit(main())
