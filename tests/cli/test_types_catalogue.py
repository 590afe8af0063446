"""Types are told without importing them: from a file that follows the package, and that nobody needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from policysmith.cli import types_catalogue
from policysmith.cli.types_catalogue import catalogue
from policysmith.config.json_schema import experiment_schema
from policysmith.registry import default_registry

RUN = """
import sys
from policysmith.cli.app import app
try:
    app(sys.argv[1:], prog_name="policysmith")
except SystemExit:
    pass
print("torch" in sys.modules)
"""


def run_apart(cache: Path, *words: str) -> list[str]:
    """What a command of its own process prints; the last line says whether it imported torch."""
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    found = subprocess.run([sys.executable, "-c", RUN, *words], env=env, capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


@pytest.fixture
def as_a_new_process(monkeypatch):
    """As if nothing had been imported yet: the catalogue may come from its file."""
    monkeypatch.delitem(sys.modules, types_catalogue.ROOM)


def test_the_second_command_imports_no_torch_and_tells_the_same(tmp_path):
    first, second = run_apart(tmp_path, "list", "norms"), run_apart(tmp_path, "list", "norms")
    assert (first[-1], second[-1]) == ("True", "False")
    assert first[:-1] == second[:-1]
    assert len(first) > 5
    (file,) = (tmp_path / "policysmith").iterdir()
    assert run_apart(tmp_path, "schema")[-1] == "False"
    file.write_text("{", encoding="utf-8")  # damaged: written anew
    assert run_apart(tmp_path, "list", "norms")[:-1] == first[:-1]
    assert json.loads(file.read_text(encoding="utf-8"))["slots"]


def test_the_file_holds_what_the_registry_does(as_a_new_process):
    written, read = catalogue(), None
    sys.modules.pop(types_catalogue.ROOM, None)
    read = catalogue()
    assert read == json.loads(json.dumps(written))
    assert read["schema"] == experiment_schema(default_registry)
    assert {(t["slot"], t["name"]) for t in read["types"]} == {
        (e.slot, e.name) for e in default_registry if default_registry.is_offered(e.slot, e.name)
    }


def test_another_version_of_a_file_is_another_catalogue(monkeypatch):
    before = types_catalogue._key()
    assert types_catalogue._key() == before
    monkeypatch.setattr(types_catalogue.policysmith, "__version__", "0.0.0")
    assert types_catalogue._key() != before


def test_where_nothing_can_be_written_the_types_are_told_all_the_same(as_a_new_process, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert catalogue()["types"]


def test_types_of_a_plugin_are_told_and_not_kept(run, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from policysmith.registry import register\n"
        "@register('mine_of_a_plugin', slot='activation')\n"
        'def mine():\n    """An activation of a plugin."""\n',
        encoding="utf-8",
    )
    assert "An activation of a plugin" in run("--plugin", plugin, "list", "mine_of_a_plugin").stdout
    assert not (tmp_path / ".cache").exists()
    del default_registry._entries["activation"]["mine_of_a_plugin"]
