"""A typed signature becomes its own strict schema: nothing about a type's options is written twice.

In: a callable whose parameters are annotated, and a mapping. Out: checked options, or every problem at once.
`Infer` marks what the data flow supplies, `Slot` a nested part; both are metadata of `typing.Annotated`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic import create_model as create_pydantic_model
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from policysmith.config.signatures import Infer, Repeated, options_of
from policysmith.errors import did_you_mean

__all__ = [
    "Infer",
    "OptionSchema",
    "Section",
    "Slot",
    "Unset",
    "error_at",
    "failures",
    "located",
    "options_of",
]

Location = tuple[str | int, ...]
OUR_ERROR = "policysmith"
MODEL_CONFIG = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=())


class Unset:
    """The value of an inferred option that the configuration did not state; there is one, `UNSET`."""

    def __reduce__(self) -> str:
        return "UNSET"

    def __repr__(self) -> str:
        return "unset"


UNSET = Unset()


@dataclass(frozen=True)
class Slot:
    """Marks an option that names a nested part: `gelu`, or `{type: gelu, …}`.

    The registry comes from the validation context (`context["registry"]`), so isolated registries share nothing.
    """

    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def decode(value: Any, info: core_schema.ValidationInfo) -> Any:
            return (info.context or {})["registry"].decode(self.name, value)

        return core_schema.with_info_plain_validator_function(decode)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"x-slot": self.name}


@dataclass(frozen=True)
class Section:
    """Marks an option that is a mapping with a schema of its own: the fields of a dataclass.

    `short` names the field that a text in place of the mapping stands for, where there is one.
    """

    target: type
    title: str
    short: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = OptionSchema(self.target, self.title)

        def decode(value: Any, info: core_schema.ValidationInfo) -> Any:
            if isinstance(value, self.target):
                return value
            if self.short is not None and isinstance(value, str):
                return self._of_text(value, schema)
            if not isinstance(value, Mapping):
                raise located(self.title, [error_at((), f"expected a mapping, found {_show(value)}", value)])
            return self.target(**schema.decode(value, info.context or {}))

        return core_schema.with_info_plain_validator_function(decode)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler.resolve_ref_schema(OptionSchema(self.target, self.title).model.model_json_schema())
        return whole if self.short is None else {"anyOf": [whole, whole["properties"][self.short]]}

    def _of_text(self, value: str, schema: OptionSchema) -> Any:
        """The section that a text stands for; what is wrong with it is said of the text itself."""
        try:
            return self.target(**schema.decode({str(self.short): value}, {}))
        except ValidationError as error:
            raise located(self.title, [error_at((), message, value) for _, message in failures(error)]) from None


def error_at(location: Location, message: str, value: Any = None) -> InitErrorDetails:
    """One problem at a place inside the value being decoded."""
    return InitErrorDetails(type=PydanticCustomError(OUR_ERROR, message), loc=location, input=value)


def located(title: str, errors: Sequence[InitErrorDetails]) -> ValidationError:
    """Problems as one exception; pydantic extends their locations as it passes outwards."""
    return ValidationError.from_exception_data(title, list(errors))


def failures(error: ValidationError) -> list[tuple[Location, str]]:
    """(location, message) of every problem in an exception raised by `OptionSchema.decode`."""
    return [(tuple(e["loc"]), _message(e)) for e in error.errors()]


class OptionSchema:
    """The strict schema of one callable's options.

    `title` names the type in messages. Parameters named `self`, `*args`, `**kwargs`, or excluded are left out;
    parameters marked `Infer` are optional for the user and listed in `inferred` (parameter → kind).
    """

    def __init__(
        self,
        target: Callable[..., Any],
        title: str,
        annotations: Mapping[str, Any] | None = None,
        exclude: Sequence[str] = (),
    ) -> None:
        self.title = title
        self._target = target
        self._overrides = dict(annotations or {})
        self._exclude = {"self", *exclude}

    @cached_property
    def parameters(self) -> dict[str, tuple[Any, Any]]:
        """Parameter → (annotation, default); `inspect.Parameter.empty` where there is no default."""
        function = self._target.__init__ if inspect.isclass(self._target) else self._target
        hints = typing.get_type_hints(function, include_extras=True)
        factories = _factories(self._target)
        return {
            name: (_allow_default(self._overrides.get(name, hints.get(name, Any)), default), default)
            for name, default, kind in (
                (name, factories.get(name, parameter.default), parameter.kind)
                for name, parameter in inspect.signature(function).parameters.items()
            )
            if name not in self._exclude and kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD)
        }

    @cached_property
    def inferred(self) -> dict[str, str]:
        """Parameter → kind of inference, in the order of the signature."""
        marks = {name: _mark(annotation, Infer) for name, (annotation, _) in self.parameters.items()}
        return {name: mark.kind for name, mark in marks.items() if mark is not None}

    @cached_property
    def repeated(self) -> dict[str, int]:
        """Parameters marked `Repeated` → their step."""
        marks = {name: _mark(annotation, Repeated) for name, (annotation, _) in self.parameters.items()}
        return {name: mark.step for name, mark in marks.items() if mark is not None}

    @cached_property
    def optional_inferred(self) -> frozenset[str]:
        """Inferred parameters that have a default and so may stay unknown."""
        return frozenset(n for n in self.inferred if self.parameters[n][1] is not inspect.Parameter.empty)

    @cached_property
    def model(self) -> type[BaseModel]:
        """The pydantic model, made at first use."""
        fields: dict[str, Any] = {}
        for name, (annotation, default) in self.parameters.items():
            if name in self.inferred:
                fields[name] = (_as_lists(annotation), Field(default=UNSET))
            elif default is inspect.Parameter.empty:
                fields[name] = (annotation, ...)
            elif _is_slot(annotation) and default is not None:
                fields[name] = (annotation, Field(default=default, validate_default=True))
            else:
                fields[name] = (annotation, Field(default=default))
        return create_pydantic_model(self.title, __config__=MODEL_CONFIG, **fields)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is derived: pydantic models made at run time don't pickle."""
        derived = {name for name, value in vars(type(self)).items() if isinstance(value, cached_property)}
        return {name: value for name, value in self.__dict__.items() if name not in derived}

    def decode(self, options: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        """Checked options with defaults filled in; raises a `ValidationError` that lists every problem."""
        errors: list[InitErrorDetails] = []
        known = list(self.parameters)
        accepted = {}
        for key, value in options.items():
            if key in self.parameters:
                accepted[key] = value
            else:
                allowed = ", ".join(n for n in known if n not in self.inferred) or "none"
                hint = named_elsewhere(key, known, context.get("registry")) or did_you_mean(key, known)
                errors.append(
                    error_at((key,), f"unknown option of {self.title!r}{hint or f'; it has: {allowed}'}", value)
                )
        try:
            decoded = self.model.model_validate(accepted, context=dict(context))
        except ValidationError as error:
            raise located(self.title, [*self._explain(error), *errors]) from None
        if errors:
            raise located(self.title, errors)
        return {name: getattr(decoded, name) for name in self.parameters}

    def _explain(self, error: ValidationError) -> list[InitErrorDetails]:
        explained: list[InitErrorDetails] = []
        by_field: dict[str | int, list[Any]] = {}
        for item in error.errors():
            by_field.setdefault(item["loc"][0], []).append(item)
        for field, items in by_field.items():
            branches = _union_branches(self.parameters[str(field)][0])
            judged = any(item["type"] in (OUR_ERROR, "missing") for item in items)
            if len(branches) > 1 and not judged:
                items = _best_branch(items, branches)
            for item in items:
                message = _message(item)
                if item["type"] == "missing":
                    message = f"required option of {self.title!r} is missing"
                    message += _could_follow(str(field), self.parameters[str(field)][0])
                explained.append(error_at(tuple(item["loc"]), message, item["input"]))
        return explained


def _could_follow(name: str, annotation: Any) -> str:
    """The remedy for a part of one's own whose required option is likely the size of its input."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    size = r"(in|input|obs|observation|state)_(features|dim|size|channels|width)$"
    if kind not in (int, Any) or _is_slot(annotation) or not re.match(size, name):
        return ""
    return "; where it follows from the input, mark it in the signature: Annotated[int, Infer('flat_features')]"


def named_elsewhere(name: object, known: Collection[str], registry: Any) -> str:
    """`; n_steps of Stable-Baselines3 is training.rollout_steps` where another library has an option of that name.

    An option that stands among the `known` ones is named without its section.
    """
    meant = registry.named_elsewhere(name) if registry is not None and isinstance(name, str) else {}
    told = []
    for ours, libraries in meant.items():
        path, _, more = ours.partition(": ")
        option = path.rpartition(".")[2]
        what = f"{option!r} here" if option in known else path
        told.append(f"{name} of {' and '.join(libraries)} is {what}{f' ({more})' if more else ''}")
    return f"; {'; '.join(told)}" if told else ""


def _factories(target: Any) -> dict[str, Any]:
    """A dataclass's defaults that are made afresh (lists, mappings), as values."""
    fields = dataclasses.fields(target) if dataclasses.is_dataclass(target) else ()
    return {f.name: f.default_factory() for f in fields if f.default_factory is not dataclasses.MISSING}


def _allow_default(annotation: Any, default: Any) -> Any:
    """A signature may say `stride: int = None`; its schema must then take null, or a spec would not decode again."""
    if default is not None or annotation is Any:
        return annotation
    mark = _mark(annotation, Infer)
    return Annotated[annotation | None, mark] if mark is not None else annotation | None


def _as_lists(annotation: Any) -> Any:
    """The annotation as a file can satisfy it: `tuple[int, ...]` becomes `list[int]`, inside others too."""
    if get_origin(annotation) is Annotated:
        return _as_lists(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return list[_as_lists(get_args(annotation)[0])]  # type: ignore[misc]
    return annotation


def _mark(annotation: Any, kind: type) -> Any:
    """The mark of that kind, if there is one; `Repeats | None` is marked as `Repeats` is."""
    if get_origin(annotation) is Annotated:
        return next((m for m in annotation.__metadata__ if isinstance(m, kind)), None)
    if kind is Repeated:
        return next(filter(None, (_mark(branch, kind) for branch in get_args(annotation))), None)
    return None


def _is_slot(annotation: Any) -> bool:
    return _mark(annotation, Slot) is not None or any(_is_slot(a) for a in get_args(annotation))


def _union_branches(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _union_branches(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(a for a in get_args(annotation) if a is not type(None))
    return ()


def _best_branch(items: list[Any], branches: Sequence[Any]) -> list[Any]:
    """Of a union's errors, those of the branch that got furthest; one message that names all branches otherwise."""
    deep = [item for item in items if len(item["loc"]) > 2]
    if deep:
        return [{**item, "loc": (item["loc"][0], *item["loc"][2:])} for item in deep]
    constraint = [item for item in items if item["type"] in _BOUNDS or item["type"] == "too_short"]
    if constraint:
        return [{**constraint[0], "loc": constraint[0]["loc"][:1]}]
    expected = " or ".join(_describe_type(branch) for branch in branches)
    first = items[0]
    words = [a for b in branches for a in (get_args(b) if get_origin(b) is typing.Literal else ())]
    message = f"expected {expected}, found {_show(first['input'])}{did_you_mean(first['input'], words)}"
    return [{**first, "type": OUR_ERROR, "msg": message, "loc": first["loc"][:1]}]


def _describe_type(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _describe_type(get_args(annotation)[0])
    if get_origin(annotation) in (list, Sequence):
        inner = get_args(annotation)
        return f"a list of {_describe_type(inner[0]).split(' ', 1)[-1]}s" if inner else "a list"
    if get_origin(annotation) is typing.Literal:
        return " or ".join(repr(a) for a in get_args(annotation))
    return _TYPE_NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _show(value: Any) -> str:
    text = {True: "true", False: "false", None: "null"}.get(value, repr(value)) if _is_scalar(value) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool)


_TYPE_NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
}

_KINDS = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "none_required": "null",
}

_BOUNDS = {"greater_than": ">", "greater_than_equal": "≥", "less_than": "<", "less_than_equal": "≤"}


def _message(item: Any) -> str:
    kind, found, context = item["type"], _show(item["input"]), item.get("ctx") or {}
    if kind == OUR_ERROR:
        return str(item["msg"])
    if kind in _KINDS:
        return f"expected {_KINDS[kind]}, found {found}"
    if kind in _BOUNDS:
        bound = next(iter(context.values()))
        return f"must be {_BOUNDS[kind]} {bound:g}, found {found}"
    if kind == "literal_error":
        allowed = str(context["expected"])
        names = [name.strip("'") for name in allowed.replace(" or ", ", ").split(", ")]
        return f"unknown value {found}{did_you_mean(item['input'], names)}; allowed: {', '.join(names)}"
    if kind == "too_short":
        least = context["min_length"]
        return f"needs at least {least} {'entry' if least == 1 else 'entries'}, found {context['actual_length']}"
    return f"{item['msg']}, found {found}"
