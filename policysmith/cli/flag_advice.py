"""What to write in place of a flag that no command has: the options of an experiment stand without dashes.

In: a flag such as `--total_steps`, and the words after it. Out: the override `training.total_steps=5`.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["override_for"]

# Where an option is looked for when it comes without its section: the usual types of both.
TYPES = {("algorithm", "ppo"): "training", ("model", "mlp"): "model"}


def override_for(flag: str, words: Sequence[str]) -> str | None:
    """The override that a flag stands for, with its value where the words of the command line have one."""
    option = flag.lstrip("-").replace("-", "_")
    path = option if "." in option else _path(option)
    return f"{path}={_value(flag, words)}" if path else None


def _path(option: str) -> str | None:
    """The path of an option that is named without its section: ours, or the one that another library calls so."""
    from policysmith.cli.types_catalogue import catalogue
    from policysmith.registry import default_registry

    found = catalogue()
    sections = found["schema"]["properties"]
    if option in sections:
        return option
    for name, schema in sections.items():
        if any(option in branch.get("properties", {}) for branch in schema.get("anyOf", ())):
            return f"{name}.{option}"
    for type_ in found["types"]:
        section = TYPES.get((type_["slot"], type_["name"]))
        if section and option in type_["options"]:
            return f"{section}.{option}"
    paths = [ours.partition(": ")[0] for ours in default_registry.named_elsewhere(option)]
    return next((path for path in paths if path.partition(".")[0] in sections), None)


def _value(flag: str, words: Sequence[str]) -> str:
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == flag:
            after = words[place + 1] if place + 1 < len(words) else ""
            return value if equals else after if after and not after.startswith("-") else "…"
    return "…"
