"""`python -m tests.mutants [WORD]`: try all mutations, or those with the word in their file; 1 if any survives."""

import sys

from tests.mutants.planned import EXPLAINED, MUTANTS
from tests.mutants.run import survivors

if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [mutant for mutant in MUTANTS if word in mutant.file]
    left = survivors(chosen)
    for mutant, reason in EXPLAINED.items():
        print(f"explained: {mutant}: {reason}")
    print(f"\n{len(chosen)} mutants, {len(left)} not seen by the tests named", *left, sep="\n")
    sys.exit(1 if left or not chosen else 0)
