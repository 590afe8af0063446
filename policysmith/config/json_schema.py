"""JSON Schema (draft 7) of the experiment file: editors complete the file by it, and mark what is wrong.

In: the registered types. Out: one schema with a definition for every slot and type. It describes the file as it is
*written*: any value may be a reference `${…}`, and any mapping may take what it lacks from a `template`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args
from urllib.parse import quote

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from policysmith.config.docstrings import argument_notes, option_notes, plain_text
from policysmith.config.experiment import SectionType, experiment_options
from policysmith.config.options import OptionSchema, Section

__all__ = [
    "COMPONENT_KEYS",
    "TypeInfo",
    "argument_notes",
    "experiment_schema",
    "option_text",
    "plain_text",
    "type_info",
    "type_options",
]

Schema = dict[str, Any]


class RegisteredType(Protocol):
    """What the schema needs to know of a registered type."""

    @property
    def slot(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def target(self) -> Callable[..., Any]: ...
    @property
    def schema(self) -> OptionSchema: ...


class RegisteredTypes(Protocol):
    """What the schema needs to know of a registry."""

    def __iter__(self) -> Iterator[RegisteredType]: ...
    def sections(self) -> Sequence[SectionType]: ...


@dataclass(frozen=True)
class TypeInfo:
    """One registered type: where it belongs, its name, its docstring's first line, and its options with their types."""

    slot: str
    name: str
    summary: str
    options: dict[str, str]


NAME = {"type": "string", "minLength": 1}
NAMES = {"type": "array", "items": NAME, "minItems": 1}
COMPONENT_KEYS: Mapping[str, Schema] = {
    "in_keys": {
        "description": "What it reads: a name, a list of names, or a mapping from arguments of forward to names.",
        "anyOf": [NAME, NAMES, {"type": "object", "additionalProperties": NAME}],
    },
    "args": {
        "description": "How it is called, in place of in_keys: $name is an edge, the rest are constants.",
        "anyOf": [{"type": "array", "minItems": 1}, {"type": "object", "minProperties": 1}],
    },
    "out_keys": {
        "description": "The names of what it writes; its own name by default.",
        "anyOf": [NAME, {**NAMES, "uniqueItems": True}],
    },
    "use": {
        "description": "The component whose weights it shares; such a component has no type and no options.",
        **NAME,
    },
    "wrappers": {"description": "Wrappers, the innermost first.", "type": "array", "items": {"x-slot": "wrapper"}},
    "init": {
        "description": "How its weights start, where the rule of their role is not wanted.",
        "anyOf": [{"x-slot": "initializer"}, {"type": "null"}],
    },
    "freeze": {"description": "Whether its weights stay as they are.", "type": "boolean", "default": False},
    "online_update": {
        "description": "Whether it learns in an environment too, or from recorded data alone.",
        "type": "boolean",
        "default": True,
    },
    "load": {
        "description": "The file, or the stored policy, that its weights come from when the policy is new.",
        "anyOf": [NAME, {"type": "null"}],
    },
}
SECTIONS: Mapping[str, Schema] = {
    "defaults": {
        "description": "Files (relative to this one), presets or profiles on which this file is laid; the later wins.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    },
    "templates": {
        "description": "Named mappings that a mapping anywhere takes over with `template: name`.",
        "type": "object",
        "additionalProperties": {"type": "object"},
    },
}
NOTES = {
    "format": "The version of this file's format.",
    "name": "What the experiment is called.",
    "seed": "Where every random number comes from; null draws a new one each time.",
}
REFERENCE = {
    "description": "A value from elsewhere: ${a.b} in this file, ${env:int:NAME,7} from the environment.",
    "type": "string",
    "pattern": r"\$\{",
}
TEMPLATE = {"description": "The template that gives what is not written here.", "type": "string"}


def experiment_schema(registry: RegisteredTypes) -> Schema:
    """The schema of an experiment file that may use the types of `registry`, as plain data."""
    slots: dict[str, dict[str, RegisteredType]] = {}
    for entry in registry:
        if entry.slot != "section":  # those are the keys at the top
            slots.setdefault(entry.slot, {})[entry.name] = entry
    definitions: Schema = {"reference": REFERENCE}
    sections = registry.sections()
    notes = {**NOTES, **{section.name: _summary(section.target) for section in sections}}
    needed = [section.name for section in sections if section.traits.get("required")]
    options = _noted(_options(experiment_options(sections), definitions), notes)
    root = _object({**SECTIONS, **options}, needed, ["template", "defaults"])
    for slot, entries in slots.items():
        definitions[slot] = _slot(slot, entries)
        extra = COMPONENT_KEYS if slot == "component" else {}
        definitions |= {f"{slot}.{name}": _type(entry, extra, definitions) for name, entry in entries.items()}
    definitions["wired"] = _component(slots.get("component", {}))  # with keys, where `component` is the part alone
    definitions["components"] = {
        "description": "Components by name, in any order; they are wired by their keys.",
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": r"^[A-Za-z_]\w*$"},
        "properties": {"template": TEMPLATE},
        "additionalProperties": _value({"x-slot": "wired"}),
    }
    for slot in _mentioned(root) | _mentioned(definitions):
        definitions.setdefault(slot, {"description": f"Any {slot}; none is registered.", "type": ["string", "object"]})
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "policysmith experiment"}
    return {**head, **root, "definitions": dict(sorted(definitions.items()))}


def type_options(entry: RegisteredType) -> dict[str, Schema]:
    """The options of one type that a file may state: name → schema with description and default, parts as marks."""
    return _described_options(entry, {})


def type_info(entry: RegisteredType) -> TypeInfo:
    """One type, and the values of its options in words."""
    options = {option: option_text(schema) for option, schema in type_options(entry).items()}
    return TypeInfo(entry.slot, entry.name, entry.summary, options)


def option_text(schema: Mapping[str, Any]) -> str:
    """The values an option takes, in words: `integer > 0`, `list of texts`, `sync or async`, `activation`."""
    if "enum" in schema or "const" in schema:
        return " or ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "x-slot" in schema or "x-components" in schema:
        return str(schema.get("x-slot", "components"))
    if "anyOf" in schema:
        texts = dict.fromkeys(option_text(branch) for branch in schema["anyOf"])
        return " or ".join(texts)
    kind = schema.get("type", "anything")
    if kind == "array" and schema.get("items"):
        return "list of " + re.sub("^(integer|number|text)", r"\1s", option_text(schema["items"]))
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
    return " ".join([_KINDS.get(kind, kind), " and ".join(bounds)]).strip()


_KINDS = {"array": "list", "boolean": "true or false", "object": "mapping", "string": "text"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


class _Generator(GenerateJsonSchema):
    """Pydantic's generator for signatures: a default may be a part, and an inferred argument may be of any type."""

    def encode_default(self, dft: Any) -> Any:
        return (
            dft.encode() if hasattr(dft, "encode") and not isinstance(dft, str | bytes) else super().encode_default(dft)
        )

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Say nothing of defaults that JSON cannot hold: they are left out."""


def _options(options: OptionSchema, definitions: Schema) -> dict[str, Schema]:
    """The options of a signature that a file may state: name → schema."""
    schema = options.model.model_json_schema(schema_generator=_Generator, ref_template="#/definitions/{model}")
    definitions |= {name: _structure(inner) for name, inner in schema.get("$defs", {}).items()}
    properties = {n: p for n, p in schema.get("properties", {}).items() if n not in options.inferred}
    marks = {name: _section(options.parameters[name][0]) for name in properties}
    for name, mark in marks.items():
        if mark is not None:
            properties[name] = _with_notes_inside(properties[name], option_notes(mark.target))
    return _noted(properties, {name: _summary(mark.target) for name, mark in marks.items() if mark})


def _with_notes_inside(schema: Schema, notes: Mapping[str, str]) -> Schema:
    """The schema of a section, which may be one of several branches, with descriptions of its options."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_with_notes_inside(branch, notes) for branch in schema["anyOf"]]}
    return {**schema, "properties": _noted(schema["properties"], notes)} if "properties" in schema else schema


def _section(annotation: Any) -> Section | None:
    """The mark in `Annotated[…, Section(…)]`, also below a union."""
    marks = [m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Section)]
    inner = (_section(argument) for argument in get_args(annotation) if not isinstance(annotation, type))
    return marks[0] if marks else next(filter(None, inner), None)


def _noted(properties: Mapping[str, Schema], notes: Mapping[str, str]) -> dict[str, Schema]:
    """Properties with the descriptions they lack."""
    return {n: {"description": notes[n], **p} if notes.get(n) else dict(p) for n, p in properties.items()}


def _type(entry: RegisteredType, extra: Mapping[str, Schema], definitions: Schema) -> Schema:
    """One type's mapping: its options, `type`, and what every mapping of the slot has besides."""
    options = _described_options(entry, definitions)
    empty, parameters = inspect.Parameter.empty, entry.schema.parameters
    required = [name for name in options if parameters[name][1] is empty and name not in extra]
    properties = {"type": {"const": entry.name}, **options, **extra}
    return {"description": _summary(entry.target), **_object(properties, required)}


def _described_options(entry: RegisteredType, definitions: Schema) -> dict[str, Schema]:
    return _noted(_options(entry.schema, definitions), option_notes(entry.target))


def _slot(slot: str, entries: Mapping[str, RegisteredType]) -> Schema:
    """A part in a slot: the name of a type, or a mapping with `type` and the options of that type.

    A schedule may be a bare number, the constant.
    """
    names = _names(entries)
    mapping = {
        "type": "object",
        "properties": {"type": _value(names), "template": TEMPLATE},
        "allOf": [_unless(["template"], {"required": ["type"]}), *_by_type(slot, entries)],
    }
    return {"anyOf": [names, mapping, *([{"type": "number"}] if slot == "schedule" else [])]}


def _component(entries: Mapping[str, RegisteredType]) -> Schema:
    """A component: a mapping with `type`, or one with `use`."""
    shared = _object(dict(COMPONENT_KEYS), [])
    return {
        "type": "object",
        "properties": {**_values({"type": _names(entries), **COMPONENT_KEYS}), "template": TEMPLATE},
        "allOf": [
            _unless(["template", "args"], {"required": ["in_keys"]}),
            _unless(["template", "use"], {"required": ["type"]}),
            {"if": {"required": ["use"]}, "then": shared},
            *_by_type("component", entries),
        ],
    }


def _names(entries: Mapping[str, RegisteredType]) -> Schema:
    return {"enum": list(entries), "enumDescriptions": [_summary(entry.target) for entry in entries.values()]}


def _by_type(slot: str, entries: Mapping[str, RegisteredType]) -> list[Schema]:
    return [
        {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": _ref(f"{slot}.{name}")}
        for name in entries
    ]


def _object(properties: Mapping[str, Schema], required: list[str], waive: Iterable[str] = ("template",)) -> Schema:
    """A closed mapping; what is `required` may come from a template instead."""
    closed = {
        "type": "object",
        "properties": {**_values(properties), "template": TEMPLATE},
        "additionalProperties": False,
    }
    return {**closed, **_unless(waive, {"required": required})} if required else closed


def _unless(keys: Iterable[str], then: Schema) -> Schema:
    """`then`, for mappings that have none of `keys`."""
    present = [{"required": [key]} for key in keys]
    return {"if": {"not": present[0] if len(present) == 1 else {"anyOf": present}}, "then": then}


def _values(properties: Mapping[str, Schema]) -> dict[str, Schema]:
    return {name: _value(schema) for name, schema in properties.items()}


def _value(schema: Schema) -> Schema:
    """What may stand where `schema` describes the value: that value, or a reference to one."""
    notes = {k: schema[k] for k in ("description", "default") if schema.get(k) is not None}
    bare = _structure({k: v for k, v in schema.items() if k not in ("title", "description", "default")})
    branches = bare["anyOf"] if set(bare) == {"anyOf"} else [bare]
    free = [not b or (b.get("type") == "string" and "enum" not in b and "const" not in b) for b in branches]
    if "const" in bare or any(free):
        return {**notes, **bare}  # any text will do, a reference too; or it is what chose this schema
    return {**notes, "anyOf": [*branches, _ref("reference")]}


def _structure(schema: Schema) -> Schema:
    """`schema` with marks as `$ref`s, and with all that is said here of what lies below."""
    if "x-slot" in schema or "x-components" in schema:
        return _ref(schema.get("x-slot", "components"))
    if schema.get("type") == "object" and schema.get("additionalProperties") is False:
        return _object(schema.get("properties", {}), schema.get("required", []))
    result = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = _value(schema[key])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            result[key] = [_structure(branch) for branch in schema[key]]
    return result


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{quote(name.replace('~', '~0').replace('/', '~1'), safe='~')}"}


def _mentioned(schema: Any) -> set[str]:
    """The slots that `$ref`s below name; those are plain words."""
    if isinstance(schema, list):
        return set().union(*map(_mentioned, schema))
    if not isinstance(schema, dict):
        return set()
    found = set().union(*map(_mentioned, schema.values()))
    target = schema.get("$ref")
    return found | {target.rpartition("/")[2]} if isinstance(target, str) and "." not in target else found


def _summary(target: Any) -> str:
    """The first paragraph of a docstring as one line."""
    return plain_text((inspect.getdoc(target) or "").split("\n\n", 1)[0])
