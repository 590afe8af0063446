"""All laws over one type: what the author of a plugin runs, and the package's own tests over every type."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from policysmith.errors import PolicysmithError, RegistryError, did_you_mean
from policysmith.graph.plan import TensorSpec
from policysmith.registry import Entry, Registry, default_registry
from policysmith.testing import gradients, memory, planned, repeated, rows, twins
from policysmith.testing.case import Case, Subject

__all__ = ["LAWS", "MEMORY_LAWS", "check_part"]

Law = Callable[[Subject], None]


def _named(*laws: Law) -> dict[str, Law]:
    return {law.__name__: law for law in laws}


LAWS: Mapping[str, Law] = _named(
    planned.planned_shapes_are_real,
    planned.planned_counts_are_real,
    planned.planned_flops_are_real,
    repeated.what_repeats_is_multiplied,
    planned.planning_makes_nothing,
    planned.building_leaves_the_global_generator,
    planned.seeds_decide_the_weights,
    planned.others_keep_their_weights,
    twins.encoding_decodes_to_itself,
    twins.emitted_code_is_the_slow_twin,
    twins.state_loads_into_another,
    twins.copies_are_independent,
    twins.exports,
    twins.compiles_whole,
    gradients.parameters_get_gradients,
    gradients.inputs_get_gradients,
    gradients.what_is_frozen_asks_for_none,
    rows.rows_stand_alone,
    rows.another_row_changes_nothing,
    rows.a_nan_stays_in_its_row,
    rows.coupling_is_declared,
)

MEMORY_LAWS: Mapping[str, Law] = _named(
    memory.acting_is_learning,
    memory.garbage_before_a_reset_is_gone,
    memory.nothing_crosses_a_reset,
    memory.no_gradient_crosses_a_reset,
    memory.no_output_sees_a_later_input,
    memory.the_state_is_remembered,
    memory.chunks_are_one_sequence,
    memory.a_call_changes_nothing_it_is_given,
)


def check_part(
    part: str | Callable[..., Any],
    inputs: Sequence[int] | Sequence[Sequence[int]] | Sequence[TensorSpec],
    *,
    options: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    outputs: int = 1,
    without_gradient: Mapping[str, str] | None = None,
    skip: Mapping[str, str] | None = None,
    registry: Registry | None = None,
) -> None:
    """Hold a registered component type to the laws that every type of the package keeps.

    Args:
        part: The type, or the name that it is registered under.
        inputs: The shape of one row of its input, `[6]`; of several inputs a list of shapes or of `TensorSpec`s.
        options: What a configuration would state.
        context: What the caller of a build supplies, such as `action_layout` for a head.
        outputs: How many tensors it gives.
        without_gradient: Parameters that get no gradient from one pass, each with the reason.
        skip: Laws that it can't keep, each with the reason.
        registry: Where it is registered, if not in the default registry.

    Raises AssertionError that names every broken law; RegistryError for a type that is not registered or a law that is
    not known.

    Example:
        `check_part("gated_mlp", [6], options={"hidden": 8})`
    """
    registry = registry or default_registry
    entry = _entry(part, registry)
    case = Case(_specs(inputs), options or {}, context or {}, outputs, without_gradient or {})
    laws = {**LAWS, **(MEMORY_LAWS if entry.traits.get("stateful") else {})}
    _check_known(skip or {}, laws)
    subject = Subject(entry.name, case, registry)
    wanted = {name: law for name, law in laws.items() if name not in (skip or {})}
    broken = [f"{name}: {reason}" for name, law in wanted.items() for reason in _broken(law, subject)]
    if broken:
        raise AssertionError(
            f"component {entry.name!r} breaks {len(broken)} of {len(laws)} laws:\n" + "\n".join(broken)
        )


def _broken(law: Law, subject: Subject) -> list[str]:
    """Why the law is broken, in one line with what it says; nothing if it holds."""
    try:
        law(subject)
    except PolicysmithError:
        raise  # the case itself can't be built: that is no matter of laws
    except Exception as error:
        return [f"{(law.__doc__ or '').split(chr(10))[0]} Found: {type(error).__name__}: {error}"]
    return []


def _entry(part: str | Callable[..., Any], registry: Registry) -> Entry:
    if isinstance(part, str):
        return registry.entry("component", part)
    found = next((entry for entry in registry if entry.slot == "component" and entry.target is part), None)
    if found is None:
        raise RegistryError(f"{part!r} is not registered as a component: decorate it with @register('name')")
    return found


def _specs(inputs: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """One shape, several shapes, or specs as they are."""
    if all(isinstance(size, int) for size in inputs):
        return (TensorSpec(tuple(inputs)),)
    return tuple(one if isinstance(one, TensorSpec) else TensorSpec(tuple(one)) for one in inputs)


def _check_known(skip: Collection[str], laws: Mapping[str, Law]) -> None:
    for name in skip:
        if name not in laws:
            raise RegistryError(f"unknown law {name!r}{did_you_mean(name, list(laws))}; laws: {', '.join(laws)}")
