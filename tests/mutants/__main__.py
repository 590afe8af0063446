"""`python -m tests.mutants [WORD] [--processes N]`: try all mutations, or those with the word in their file's name.

Ends with 1 if any is not seen.
"""

import argparse
import sys

from tests.mutants.planned import MUTANTS
from tests.mutants.run import outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.word in mutant.file]
    bad = []
    for outcome in outcomes(chosen, options.processes):
        print(outcome, flush=True)
        bad += [] if outcome.good else [outcome]
    print(f"\n{len(chosen)} mutants, {len(bad)} not as it must be", *bad, sep="\n")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
