"""Runs Python files as programs, each in a fork of one process that has imported the package: imports cost seconds.

In: their paths. Out: exit status 1 if one failed, its error on stderr. Each runs in the folder it lies in.
"""

import os
import runpy
import sys
import traceback
from pathlib import Path

import policysmith.api  # noqa: F401 - what the programs would import


def run(path: Path) -> bool:
    """Whether the program ended well."""
    child = os.fork()
    if child == 0:
        os.chdir(path.parent)
        try:
            runpy.run_path(str(path), run_name="__main__")
        except BaseException:
            traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


if __name__ == "__main__":
    sys.exit(0 if all([run(Path(name)) for name in sys.argv[1:]]) else 1)
