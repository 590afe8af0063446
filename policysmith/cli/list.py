"""`policysmith list`: the registered types by slot, the options of one, the presets and the profiles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any

import typer

from policysmith.cli.arguments import AsJson
from policysmith.cli.output import chatter_to_stderr, print_columns, print_json, print_paragraph, print_rich
from policysmith.cli.types_catalogue import CatalogueData, TypeData, catalogue, matching
from policysmith.errors import RegistryError, did_you_mean

__all__ = ["list_types"]


def list_types(
    ctx: typer.Context,
    pattern: Annotated[
        str,
        typer.Argument(metavar="PATTERN", help="A name, a wildcard ('nn.*'), slots, one of them, presets or profiles."),
    ] = "*",
    slot: Annotated[str | None, typer.Option(metavar="SLOT", help="Only types for this slot.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the types that a configuration can name.

    Each takes a line; of a type named in full the options are listed too.

    Examples:
        policysmith list
        policysmith list slots
        policysmith list components
        policysmith list 'nn.*'
        policysmith list mlp
        policysmith list presets
        policysmith list profiles
    """
    if pattern in ("preset", "presets", "profile", "profiles") and slot is None:
        _list_recipes(pattern.rstrip("s"), as_json)
        return
    with chatter_to_stderr():
        data = catalogue(plugins=bool(ctx.obj))
    slots = data["slots"]
    if pattern in ("slot", "slots") and slot is None:
        _list_slots(data, as_json)
        return
    if slot is not None and slot not in slots:
        raise RegistryError(f"unknown slot {slot!r}{did_you_mean(slot, slots)}; slots: {', '.join(slots)}")
    wanted = next((s for s in slots if pattern in (s, _plural(s))), None) if slot is None else slot
    found = matching(data, pattern if wanted in (None, slot) else "*", wanted)
    if as_json:
        print_json({"types": [_described(info) for info in found]})
    elif found and pattern in {info["name"] for info in found}:
        _print_options(found)
    elif found:
        _print_types(found)
    else:
        raise RegistryError(_nothing(data, pattern, wanted))


def _described(info: TypeData) -> dict[str, Any]:
    """A type as JSON tells it: its options with the values they take."""
    from policysmith.config.json_schema import option_text

    return {**info, "options": {name: option_text(schema) for name, schema in info["options"].items()}}


def _nothing(data: CatalogueData, pattern: str, slot: str | None) -> str:
    slots = data["slots"]
    if pattern == "*" or pattern in map(_plural, slots) or pattern in slots:
        return f"no type is registered for the slot {slot!r}"
    names = {info["name"] for info in matching(data, slot=slot)} | {_plural(s) for s in slots}
    return f"no type matches {pattern!r}{did_you_mean(pattern, sorted(names))}"


def _plural(slot: str) -> str:
    return f"{slot[:-1]}ies" if slot.endswith("y") else f"{slot}s"


def _print_types(found: Sequence[TypeData]) -> None:
    """A block a slot, aligned over all of them."""
    from policysmith.config.json_schema import plain_text

    width = max(len(info["name"]) for info in found)
    for index, (slot, group) in enumerate(groupby(found, key=lambda info: info["slot"])):
        _print_heading(slot, first=index == 0)
        print_columns([(info["name"], plain_text(info["summary"])) for info in group], [width])


def _print_options(found: Sequence[TypeData]) -> None:
    """Types of one name, with all their options: name, values, default, what it is."""
    from policysmith.config.json_schema import option_text, plain_text

    for index, info in enumerate(found):
        _print_heading(f"{info['slot']} {info['name']}", first=index == 0)
        print_paragraph(plain_text(info["summary"]))
        if info["options"]:
            typer.echo()
            rows = [(n, option_text(s), _default(s), s.get("description", "")) for n, s in info["options"].items()]
            print_columns(rows)


def _default(schema: dict[str, Any]) -> str:
    return _yaml(schema["default"]) if "default" in schema else "required"


def _yaml(value: Any) -> str:
    """A value as a person writes it in YAML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _print_heading(text: str, *, first: bool = True) -> None:
    from rich.text import Text

    if not first:
        typer.echo()
    print_rich(Text(text, style="bold"))


def _list_slots(data: CatalogueData, as_json: bool) -> None:
    """Every slot, how many types it has, and some of them."""
    names = {slot: [info["name"] for info in matching(data, slot=slot)] for slot in data["slots"]}
    if as_json:
        print_json({"slots": [{"name": slot, "types": found} for slot, found in names.items()]})
        return
    _print_heading("slots")
    print_columns([(slot, str(len(found)), ", ".join(found)) for slot, found in names.items()])


def _list_recipes(kind: str, as_json: bool) -> None:
    """The presets or the profiles, each with what it says of itself."""
    from policysmith.config.preset_files import PRESETS, PROFILES, preset_names, profile_names

    folder, names = (PRESETS, preset_names()) if kind == "preset" else (PROFILES, profile_names())
    found = [(name, _first_comment(folder / f"{name}.yaml")) for name in names]
    if as_json:
        print_json({f"{kind}s": [{"name": name, "summary": summary} for name, summary in found]})
    elif found:
        _print_heading(f"{kind}s")
        print_columns(found)


def _first_comment(path: Any) -> str:
    """What a recipe says of itself in its first line."""
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return line.lstrip("# ").strip() if line.startswith("#") else ""
