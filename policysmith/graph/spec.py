"""What a configuration says of components: types and options, keys, sharing, initialisation, freezing.

In: a mapping name → component as written. Out: `ComponentSpec`s, checked but not yet wired.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, core_schema
from torch import nn

from policysmith.config.options import error_at, failures, located
from policysmith.errors import did_you_mean
from policysmith.graph.call import Call, Edge
from policysmith.registry import PartSpec, Registry

__all__ = ["ComponentSpec", "Components", "GraphSpec", "decode_components", "loose_keys", "name_problem"]

NAME = re.compile(r"[A-Za-z_]\w*")
RESERVED = frozenset(
    {"observation", "action", "action_mask", "action_log_prob", "aux", "is_init", "next", "reward", "done"}
)
OF_CONTAINER = {"execute", "execution_order", "register_component", "replace_component", "validate"}
ATTRIBUTES = frozenset(dir(nn.ModuleDict())) | OF_CONTAINER
COMPONENT_KEYS = ("type", "in_keys", "args", "out_keys", "use", "wrappers", "init", "freeze", "online_update", "load")


@dataclass(frozen=True)
class ComponentSpec:
    """One component: what it is (`part`, or `use`: another component's weights) and what it reads and writes.

    `arguments` names the forward argument of each in_key when the configuration maps argument → key; `call` says how
    the module is called where there are constants among its arguments. `load` is a file
    that the weights of a new policy come from. Without `online_update` it learns from recorded data alone.
    """

    name: str
    part: PartSpec | None
    in_keys: tuple[str, ...]
    out_keys: tuple[str, ...]
    arguments: tuple[str, ...] | None = None
    use: str | None = None
    init: PartSpec | None = None
    freeze: bool = False
    wrappers: tuple[PartSpec, ...] = ()
    online_update: bool = True
    load: str | None = None
    call: Call | None = None

    def encode(self) -> dict[str, object]:
        """The mapping that decodes to this spec, defaults left out where they say nothing."""
        data: dict[str, object] = {"use": self.use} if self.part is None else self.part.encode()
        keys = list(self.in_keys)
        if self.call is not None:
            data["args"] = self.call.encode()
        else:
            data["in_keys"] = dict(zip(self.arguments, keys, strict=True)) if self.arguments else keys
        if self.out_keys != (self.name,):
            data["out_keys"] = list(self.out_keys)
        if self.init:
            data["init"] = self.init.encode()
        if self.freeze:
            data["freeze"] = True
        if not self.online_update:
            data["online_update"] = False
        if self.load:
            data["load"] = self.load
        if self.wrappers:
            data["wrappers"] = [wrapper.encode() for wrapper in self.wrappers]
        return data


@dataclass(frozen=True)
class GraphSpec:
    """Components by name, in the order of the text."""

    components: Mapping[str, ComponentSpec] = field(default_factory=dict)

    def encode(self) -> dict[str, object]:
        """The mapping that decodes to this spec."""
        return {name: spec.encode() for name, spec in self.components.items()}


class Components:
    """Annotation of an option that holds components: `Annotated[GraphSpec, Components()]`."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def decode(value: object, info: core_schema.ValidationInfo) -> GraphSpec:
            return decode_components(value, (info.context or {})["registry"])

        return core_schema.with_info_plain_validator_function(decode)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: object) -> dict[str, object]:
        return {"type": "object", "x-components": True}


def decode_components(value: object, registry: Registry) -> GraphSpec:
    """Checked specs of a mapping name → component; a `ValidationError` lists every problem."""
    if isinstance(value, GraphSpec):
        return value
    if not isinstance(value, Mapping):
        raise located("components", [error_at((), "expected a mapping from names to components", value)])
    if not value:
        raise located("components", [error_at((), "there must be at least one component", value)])
    errors: list[InitErrorDetails] = []
    specs: dict[str, ComponentSpec] = {}
    for name, entry in value.items():
        problem = name_problem(name)
        if problem:
            errors.append(error_at((name,), problem, name))
            continue
        try:
            specs[name] = _decode_component(name, entry, registry)
        except ValidationError as error:
            errors += [error_at((name, *place), message) for place, message in failures(error)]
    if errors:
        raise located("components", errors)
    return GraphSpec(specs)


def loose_keys(components: Mapping[str, Mapping[str, object]]) -> dict[str, ComponentSpec]:
    """What each component as written reads and writes, whatever else is wrong with it: enough to check the wiring."""
    ignored: list[InitErrorDetails] = []
    return {
        name: ComponentSpec(
            name,
            None,
            _inputs(entry, ignored)[0],
            _names(entry.get("out_keys", name), "out_keys", ignored),
        )
        for name, entry in components.items()
        if isinstance(name, str) and isinstance(entry, Mapping)
    }


def name_problem(name: object) -> str | None:
    """Why this can't be a component's name, or None."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"illegal component name {name!r}: letters, digits and _ only, not starting with a digit"
    if name in RESERVED:
        return f"{name!r} is reserved for a standard key; choose another name"
    if name in ATTRIBUTES:
        return f"{name!r} is reserved (an attribute of every module); choose another name"
    return None


def _decode_component(name: str, entry: object, registry: Registry) -> ComponentSpec:
    if not isinstance(entry, Mapping):
        raise located(name, [error_at((), "expected a mapping with 'type' and 'in_keys'", entry)])
    errors: list[InitErrorDetails] = []
    part = _part(entry, registry, errors)
    in_keys, arguments, call = _inputs(entry, errors)
    out_keys = _names(entry.get("out_keys", name), "out_keys", errors)
    for key in out_keys:
        problem = name_problem(key)
        if problem:
            errors.append(error_at(("out_keys",), problem, key))
    init = _nested(entry, "init", "initializer", registry, errors)
    wrappers = _wrappers(entry.get("wrappers", []), registry, errors)
    freeze, online = _flag(entry, "freeze", False, errors), _flag(entry, "online_update", True, errors)
    load = entry.get("load")
    if load is not None and (not isinstance(load, str) or not load):
        errors.append(error_at(("load",), f"expected the path of a file of weights, found {load!r}", load))
    if errors:
        raise located(name, errors)
    use = entry.get("use")
    return ComponentSpec(name, part, in_keys, out_keys, arguments, use, init, freeze, wrappers, online, load, call)


def _part(entry: Mapping[str, object], registry: Registry, errors: list[InitErrorDetails]) -> PartSpec | None:
    options = {k: v for k, v in entry.items() if k not in COMPONENT_KEYS}
    if "use" in entry:
        if "type" in entry:
            errors.append(
                error_at(("use",), "'use' shares another component's weights and excludes 'type'", entry["use"])
            )
        if not isinstance(entry["use"], str):
            errors.append(error_at(("use",), f"expected a component's name, found {entry['use']!r}", entry["use"]))
        own = {**options, **{k: entry[k] for k in ("init", "freeze", "online_update", "load") if k in entry}}
        errors += [error_at((k,), "a component with 'use' takes no options of its own", v) for k, v in own.items()]
        return None
    try:
        if "type" in entry:
            options["type"] = entry["type"]
        return registry.decode("component", options)
    except ValidationError as error:
        for place, message in failures(error):
            hint = ""
            if "unknown option" in message and "did you mean" not in message and place:
                hint = did_you_mean(place[-1], COMPONENT_KEYS)
            errors.append(error_at(place, message + hint))
        return None


def _inputs(
    entry: Mapping[str, object], errors: list[InitErrorDetails]
) -> tuple[tuple[str, ...], tuple[str, ...] | None, Call | None]:
    """What a component reads: in_keys, or the edges among its args."""
    if "args" not in entry:
        return *_in_keys(entry.get("in_keys"), errors), None
    value = entry["args"]
    if "in_keys" in entry:
        errors.append(error_at(("args",), "says what is read, so in_keys does not stand beside it", value))
    elif not isinstance(value, list | Mapping):
        errors.append(
            error_at(("args",), f"expected a list of arguments, or a mapping by name, found {value!r}", value)
        )
    else:
        read = {key: _argument(item) for key, item in value.items()} if isinstance(value, Mapping) else {}
        call = Call(kwargs=read) if isinstance(value, Mapping) else Call(tuple(map(_argument, value)))
        if call.edges:
            return call.edges, None, call
        errors.append(error_at(("args",), "reads no edge: write $name for one", value))
    return (), None, None


def _argument(value: object) -> object:
    """An argument as written: `$name` stands for an edge, `$$` for a plain `$`."""
    if isinstance(value, Mapping):
        return {key: _argument(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_argument(item) for item in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    return value[1:] if value.startswith("$$") else Edge(value[1:])


def _in_keys(value: object, errors: list[InitErrorDetails]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    if value is None:
        errors.append(
            error_at(("in_keys",), "required: the name of what it reads, a list, or a mapping argument → name")
        )
        return (), None
    if isinstance(value, Mapping):
        bad = [k for k, v in value.items() if not isinstance(k, str) or not isinstance(v, str)]
        if bad:
            errors.append(error_at(("in_keys",), "a mapping here goes from argument names to keys, both texts", value))
            return (), None
        return tuple(value.values()), tuple(value)
    return _names(value, "in_keys", errors), None


def _names(value: object, key: str, errors: list[InitErrorDetails]) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) for n in names):
        errors.append(error_at((key,), f"expected a name or a list of names, found {value!r}", value))
        return ()
    if key == "out_keys" and len(set(names)) < len(names):
        errors.append(error_at((key,), f"the same name twice in {names!r}", value))
    return tuple(names)


def _flag(entry: Mapping[str, object], key: str, usual: bool, errors: list[InitErrorDetails]) -> bool:
    value = entry.get(key, usual)
    if not isinstance(value, bool):
        errors.append(error_at((key,), f"expected true or false, found {value!r}", value))
    return bool(value)


def _nested(
    entry: Mapping[str, object], key: str, slot: str, registry: Registry, errors: list[InitErrorDetails]
) -> PartSpec | None:
    if entry.get(key) is None:
        return None
    try:
        return registry.decode(slot, entry[key])
    except ValidationError as error:
        errors += [error_at((key, *place), message) for place, message in failures(error)]
        return None


def _wrappers(value: object, registry: Registry, errors: list[InitErrorDetails]) -> tuple[PartSpec, ...]:
    if not isinstance(value, list | tuple):
        errors.append(error_at(("wrappers",), f"expected a list, found {value!r}", value))
        return ()
    specs = []
    for index, item in enumerate(value):
        try:
            specs.append(registry.decode("wrapper", item))
        except ValidationError as error:
            errors += [error_at(("wrappers", index, *place), message) for place, message in failures(error)]
    return tuple(specs)
