"""Commands that only tell what lies on the disk load no tensors, and so answer at once."""

from __future__ import annotations

import json
import subprocess
import sys

from policysmith.skills import SkillLibrary
from policysmith.store import PolicyStore
from tests.skills.library_workers import trained
from tests.store.workers import small_policy

COMMANDS = (
    ("store", "ls"),
    ("store", "ls", "best:return", "--json"),
    ("store", "show"),
    ("store", "show", "best:return", "--json"),
    ("skills", "ls"),
    ("skills", "ls", "--json"),
    ("skills", "show", "Wood"),
    ("skills", "history", "Wood"),
    ("skills", "graph"),
    ("skills", "graph", "Wood"),
    ("skills", "graph", "--output", "skills.mmd"),
    ("new", "policy.yaml"),
)
HEAVY = ("torch", "tensordict", "gymnasium")
RUN = """
import json, sys
from policysmith.cli.app import app
for words in json.loads(sys.argv[1]):
    try:
        app(words, prog_name="policysmith")
    except SystemExit as end:
        code = end.code
    print("loaded:", [name for name in json.loads(sys.argv[2]) if name in sys.modules], "code:", code)
"""


def test_what_lists_and_shows_loads_no_tensors(tmp_path):
    """All in one process: whatever one of them loads, it and those behind it show."""
    PolicyStore(tmp_path / "policies").save(small_policy(), name="cart", step=10, metrics={"return": 1.0})
    trained(SkillLibrary(tmp_path / "library"), "Wood", 1.0, frames=1000, scores={"Wood": 0.5})
    words = [sys.executable, "-c", RUN, json.dumps(COMMANDS), json.dumps(HEAVY)]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    answers = found.stdout.split("loaded: [] code: 0\n")
    assert len(answers) == len(COMMANDS) + 1, found.stdout + found.stderr
    assert all(answers[:-1]), "every command tells something"
    assert "cart" in answers[0] and "Wood" in answers[4]
