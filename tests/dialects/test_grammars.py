"""Every dialect is found by name, reads in the same way, and is imported by nobody who does not use it."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import policysmith
from policysmith import importers
from policysmith.dialects import TYPES
from policysmith.errors import ConfigError, RegistryError
from policysmith.registry import Registry, default_registry

NAMES = default_registry.names("grammar")


@pytest.mark.parametrize("name", NAMES)
def test_read_takes_a_file_and_the_weights_beside_it(name):
    read = default_registry.entry("grammar", name).target.read
    first, second, *others = inspect.signature(read).parameters.values()
    assert (first.name, second.name, second.default) == ("path", "weights", None)
    assert all(p.kind is p.KEYWORD_ONLY for p in others)
    assert importers.find_importer(name) is read


@pytest.mark.parametrize("name", ["keisei", "flowrl"])
def test_weights_beside_a_file_that_holds_them_are_refused(name):
    with pytest.raises(ConfigError, match="keeps a network in one file"):
        importers.find_importer(name)("old", "weights.pt")


@pytest.mark.parametrize(("slot", "name"), sorted(TYPES))
def test_every_type_that_is_known_by_name_is_where_it_is_said_to_be(slot, name):
    entry = default_registry.entry(slot, name)
    assert entry.target.__module__ == TYPES[slot, name]
    assert default_registry.copy().entry(slot, name) is entry
    with pytest.raises(RegistryError, match=f"already registered by {entry.target.__module__}"):
        default_registry.copy().register(name, slot=slot)(lambda: None)
    assert name not in Registry().names(slot)


def test_a_type_is_imported_when_it_is_first_used():
    code = (
        "import sys; from policysmith.registry import default_registry as r;"
        "r.names('grammar'), r.names('model'), r.copy();"
        "print([m for m in sys.modules if m.startswith('policysmith.dialects.')]);"
        "r.entry('model', 'networks');"
        "print('policysmith.dialects.policy_constructor.networks' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["[]", "True"]


def test_the_public_names_of_the_dialects_are_those_of_the_package():
    from policysmith.dialects.keisei import names as keisei
    from policysmith.dialects.metta import names as metta
    from policysmith.dialects.policy_constructor import names as policy_constructor
    from policysmith.dialects.trading_bot import names as trading_bot

    assert policysmith.ModelRegistry is keisei.ModelRegistry
    assert policysmith.PolicyAgent is metta.MettaAgent
    assert policysmith.ModelFactory is policy_constructor.ModelFactory
    assert policysmith.ModelConfig is trading_bot.ModelConfig
