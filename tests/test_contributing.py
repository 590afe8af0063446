"""CONTRIBUTING.md sends a newcomer to the right place: its plan and its paths are those of the package."""

from __future__ import annotations

import ast
import graphlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import policysmith.api
from policysmith.cli import app
from policysmith.registry import default_registry
from tests.test_architecture import ALLOWED, FACES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "policysmith"


def table(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, its own heading left out."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, f"CONTRIBUTING.md has no section {heading!r}"
    rows = [line.strip("| \n").split(" | ") for line in section[1].splitlines() if line.startswith("| ")]
    return rows[1:]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


PLACES = {what: (path.strip("`"), quoted(holds)) for what, path, holds in table("Where to change what")}


def place(word: str) -> Path:
    """The one path for what starts so."""
    (path,) = (path for what, (path, _) in PLACES.items() if what.startswith(word))
    return ROOT / path


def file_of(target: Any) -> Path:
    """Where a class or a function is written."""
    return Path(inspect.getsourcefile(inspect.unwrap(target)) or "")


@cache
def trees() -> dict[Path, ast.Module]:
    return {file: ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")}


def defining(name: str) -> list[Path]:
    """Files with a public class or function of that name at their top."""
    kinds = ast.FunctionDef | ast.ClassDef
    return [file for file, tree in trees().items() if any(isinstance(n, kinds) and n.name == name for n in tree.body)]


def users(path: Path) -> set[Path]:
    """Other files that import something from this one."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return {
        file
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == module
    }


def test_every_path_is_there():
    assert len(PLACES) >= 7
    assert [path for path, _ in PLACES.values() if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("word", ["how attention", "which token", "masks of legal actions", "a term of PPO"])
def test_a_path_holds_the_only_definition_and_others_use_it(word):
    ((path, names),) = (entry for what, entry in PLACES.items() if what.startswith(word))
    assert names and {name: defining(name) for name in names} == {name: [ROOT / path] for name in names}
    assert users(ROOT / path), f"nothing uses {path}"


def test_every_type_of_attention_lives_where_it_is_said():
    files = {entry.name: file_of(entry.target) for entry in default_registry if entry.slot == "attention"}
    assert len(files) > 5
    assert {name: file for name, file in files.items() if file.parent != place("a type of attention")} == {}


def test_attention_of_every_type_is_computed_by_the_one_call():
    """No type calls torch's kernel by itself."""
    kernel = "scaled_dot_product_attention"
    calls = (
        (file, node.func) for file, tree in trees().items() for node in ast.walk(tree) if isinstance(node, ast.Call)
    )
    callers = {file for file, called in calls if isinstance(called, ast.Attribute) and called.attr == kernel}
    assert callers == {place("how attention is computed")}


def test_the_loss_that_ppo_minimises_is_made_where_it_is_said():
    """The registered algorithm, or a class that it extends, imports that file."""
    algorithm = default_registry.entry("algorithm", "ppo").target
    files = {file_of(base) for base in inspect.getmro(algorithm) if base.__module__.startswith("policysmith.")}
    assert files & users(place("a term of PPO"))


def test_every_importer_has_its_grammar_where_it_is_said():
    example = place("what an importer reads")
    grammars = {entry.name: file_of(entry.target) for entry in default_registry if entry.slot == "grammar"}
    assert file_of(default_registry.entry("grammar", example.parent.name).target) == example
    systems = example.parent.parent.glob(f"*/{example.name}")
    assert sorted(grammars.values()) == sorted(systems) and len(grammars) >= 5


def commands(group: Any, *above: str) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Every command by its words, with the function that it runs."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)
        elif command.callback is not None:
            yield (*above, name), inspect.unwrap(command.callback)


def test_every_command_has_its_options_in_the_file_of_its_name():
    """A group's file has those of its commands that have no file of their own."""
    example = place("an option of a command")
    found = dict(commands(typer.main.get_command(app)))
    assert file_of(found["train",]) == example
    assert len(found) > 15
    for words, function in found.items():
        names = {"_".join(words[: n + 1]).replace("-", "_") for n in range(len(words))}
        names |= {f"{name}_" for name in names}
        assert file_of(function).parent == example.parent and file_of(function).stem in names, words


def test_options_of_a_command_are_those_of_its_function():
    """Its own, and those of the verb behind it, which it takes as `**options`."""
    command = typer.main.get_command(app).commands["train"]
    own = inspect.signature(inspect.unwrap(command.callback)).parameters.values()
    written = {p.name for p in own if p.kind is not p.VAR_KEYWORD} - {"ctx"}
    offered = {option.name for option in command.params}
    assert written <= offered
    assert (
        {"seed", "resume"} <= offered - written <= {*inspect.signature(policysmith.train).parameters, "plugin", "debug"}
    )


def floors() -> dict[str, int]:
    """How high a room stands: one floor above the highest of those that it imports."""
    found: dict[str, int] = {}
    for room in graphlib.TopologicalSorter(ALLOWED).static_order():
        found[room] = 1 + max((found[below] for below in ALLOWED[room]), default=0)
    return found


def test_the_plan_of_the_house_is_the_one_that_is_kept():
    plan = {room: int(floor) for floor, rooms, _ in table("The house") for room in quoted(rooms)}
    assert plan == {room: floor for room, floor in floors().items() if not room.startswith("__")}
    assert list(plan.values()) == sorted(plan.values()), "the lowest floor first"
    assert set(plan) >= FACES - {"__init__"}
    assert all(len(says) > 10 for _, _, says in table("The house"))
