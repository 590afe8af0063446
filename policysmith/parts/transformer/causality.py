"""Which parts may stand where no step must see a later one.

In: the slot arguments of a causal model. Out: nothing, or a ValueError that names the option, the reason and a way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policysmith.parts.transformer.slots import PartLike, spec_of
from policysmith.registry import PartSpec, default_registry

__all__ = ["refuse_mixing"]


def refuse_mixing(parts: Mapping[str, PartLike], why: str) -> None:
    """Raise ValueError for a part, or one nested in its options, that lets a step see later ones.

    `parts` maps slot → argument; `why` ends the sentence (`which a causal transformer forbids`). Types say so by
    `causal=False`; an attention type must say `causal=True`. One that reads a source is no matter of order: blocks
    refuse it where it does not belong.
    """
    for slot, value in parts.items():
        spec = spec_of(slot, value)
        for path, inner in _nested(slot, spec) if spec is not None else ():
            if not _keeps_order(inner.slot, inner.entry.traits) and not inner.entry.traits.get("source"):
                raise ValueError(
                    f"{path}: {inner.type!r} lets a step see the whole sequence, {why}; use {_alternatives(inner.slot)}"
                )


def _keeps_order(slot: str, traits: Mapping[str, object]) -> bool:
    return bool(traits.get("causal", slot != "attention"))


def _nested(path: str, spec: PartSpec) -> Iterator[tuple[str, PartSpec]]:
    yield path, spec
    for name, option in spec.options.items():
        if isinstance(option, PartSpec):
            yield from _nested(f"{path}.{name}", option)


def _alternatives(slot: str) -> str:
    entries = [default_registry.entry(slot, name) for name in default_registry.names(slot)]
    good = [entry.name for entry in entries if _keeps_order(slot, entry.traits)]
    return f"{', '.join(good[:-1])} or {good[-1]}" if len(good) > 1 else ", ".join(good)
