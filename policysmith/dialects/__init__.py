"""Foreign systems, one folder each: their configuration, their weights and their public names become ours.

`grammar.py` reads what a system has written, `weights.py` maps the names of its tensors to ours, `names.py` has its
public names over ours. Nothing here is imported by other rooms: the registry finds the types below by name.
"""

from collections.abc import Mapping

__all__ = ["GRAPHS", "OPTION_NAMES", "TYPES"]

_CONSTRUCTOR = "policysmith.dialects.policy_constructor"

TYPES: Mapping[tuple[str, str], str] = {
    ("grammar", "flowrl"): "policysmith.dialects.flowrl.grammar",
    ("grammar", "keisei"): "policysmith.dialects.keisei.grammar",
    ("grammar", "metta"): "policysmith.dialects.metta.grammar",
    ("grammar", "model-config"): "policysmith.dialects.trading_bot.grammar",
    ("grammar", "policy-constructor"): f"{_CONSTRUCTOR}.grammar",
    ("model", "networks"): f"{_CONSTRUCTOR}.networks",
    ("model", "factory"): f"{_CONSTRUCTOR}.networks",
    ("component", "factory_model"): f"{_CONSTRUCTOR}.factory_model",
    ("model_factory", "policy_constructor"): f"{_CONSTRUCTOR}.names",
}
"""Slot and name of a type → the module that registers it when it is first used."""

GRAPHS: Mapping[str, frozenset[str]] = {"policy-constructor": frozenset({"schema_version", "model", "defaults"})}
"""Grammars of graphs → keys at the top of a graph that may be theirs: without one the grammar is not asked."""

OPTION_NAMES = "policysmith.dialects.option_names"
"""The module that says what other libraries call our options and types, imported when a name is not known."""
