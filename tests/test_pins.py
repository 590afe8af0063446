"""What `make` installs is pinned, package by package; what pip may install elsewhere has a lower end that is tested."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
PIN_FILES = {
    "constraints.txt": ["dev"],
    "constraints/interop.txt": ["dev", "interop"],
    "constraints/ray.txt": ["dev", "ray"],
    "constraints/jax.txt": ["dev", "craftax", "minari"],
}


def pins(file: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def requirements(extras: list[str]) -> list[Requirement]:
    """Those of the base install and of some extras; an extra of the project itself stands for its requirements."""
    texts = [*PROJECT["dependencies"], *(text for name in extras for text in PROJECT["optional-dependencies"][name])]
    direct = [Requirement(text) for text in texts]
    inner = [extra for one in direct if one.name == PROJECT["name"] for extra in sorted(one.extras)]
    return [one for one in direct if one.name != PROJECT["name"]] + (requirements(inner) if inner else [])


def installed_closure(wanted: list[Requirement]) -> set[str]:
    """The names of all installed packages that some requirements lead to."""
    found: set[tuple[str, str]] = set()
    while wanted:
        one = wanted.pop()
        for extra in ("", *one.extras):
            key = (canonicalize_name(one.name), extra)
            if key in found:
                continue
            found.add(key)
            inner = [Requirement(text) for text in importlib.metadata.requires(one.name) or []]
            wanted += [each for each in inner if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def test_every_package_of_the_development_environment_is_pinned():
    closure = installed_closure(requirements(["dev"]))
    assert len(closure) > 50
    assert sorted(closure - set(pins("constraints.txt"))) == [], "run `make pins`"


@pytest.mark.parametrize(("file", "extras"), PIN_FILES.items())
def test_each_requirement_has_a_pin_inside_its_range(file, extras):
    pinned = pins(file)
    build = [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]
    for one in (*requirements(extras), *build):
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), f"{file}: {one}"


@pytest.mark.parametrize("file", PIN_FILES)
def test_all_environments_hold_the_same_torch(file):
    assert pins("constraints/torch.txt") == {"torch": pins(file)["torch"]}


def test_every_range_has_a_lower_end_that_can_be_tested():
    command = [sys.executable, ROOT / "scripts/oldest", "dev", "--without", "torch"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ranges = {one.name: one for one in requirements(["dev"]) if one.name != "torch"}
    assert sorted(lines) == sorted(f"{name}{one.specifier}".replace(">=", "==") for name, one in ranges.items())
