"""The table of a described policy: a row a component, totals, memory.

The dictionary that `policysmith.describe` returns flows in; rows of text, or a rich table for the terminal, flow out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

from policysmith.config.sizes import size_text

__all__ = [
    "HEADINGS",
    "Row",
    "human_bytes",
    "human_count",
    "human_flops",
    "memory_line",
    "shape_text",
    "summary_rows",
    "table",
    "type_text",
]

HEADINGS = ("component", "type", "inputs", "output shape", "parameters", "FLOPs")

_STYLES = {"input": "blue", "policy": "green", "value": "dark_orange"}


@dataclass(frozen=True)
class Row:
    """One line of the table, as text; `kind` is `input`, a node's role or an empty string."""

    kind: str
    cells: tuple[str, str, str, str, str, str]


def human_count(count: int) -> str:
    """A count with separators: `13,241,300`."""
    return f"{count:,}"


def human_bytes(count: int) -> str:
    """Bytes in binary units: `512 B`, `35.8 KiB`, `50.5 MiB`."""
    return size_text(count)


def human_flops(count: int) -> str:
    """Floating point operations in decimal units: `640 FLOP`, `1.2 MFLOP`."""
    return _scaled(count, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def shape_text(shape: Sequence[Any]) -> str:
    """An event shape as people write it: `3 × 84 × 84`, `scalar`; several shapes are joined by commas."""
    if shape and isinstance(shape[0], list | tuple):
        return ", ".join(shape_text(part) for part in shape)
    return " × ".join(str(size) for size in shape) or "scalar"


def type_text(node: Mapping[str, Any]) -> str:
    """A node's type with what is special about its weights: `mlp, weights of actor`, `conv, frozen`."""
    if node["shares"]:
        return f"{node['type']}, weights of {node['shares']}"
    frozen = node["parameters"] and not node["trainable"]
    return f"{node['type']}, frozen" if frozen else str(node["type"])


def memory_line(totals: Mapping[str, int]) -> str:
    """What the policy occupies, in one line; activations and state are those of one observation."""
    parts = ("parameters", "parameter_bytes"), ("buffers", "buffer_bytes"), ("activations", "activation_bytes")
    occupied = [*parts, ("state", "state_bytes")]
    return "memory: " + " · ".join(f"{name} {human_bytes(totals[key])}" for name, key in occupied)


def batch_line(batch: Mapping[str, int]) -> str:
    """What one forward pass of a batch takes, in one line."""
    parts = [human_flops(batch["flops"]), f"activations {human_bytes(batch['activation_bytes'])}"]
    state = [f"state {human_bytes(batch['state_bytes'])}"] if batch["state_bytes"] else []
    return f"{human_count(batch['rows'])} rows: " + " · ".join([*parts, *state])


def summary_rows(description: Mapping[str, Any]) -> list[Row]:
    """The inputs, then the nodes, in the order of the description; the totals are the last row."""
    rows = [Row("input", (i["name"], "input", "", shape_text(i["shape"]), "", "")) for i in description["inputs"]]
    for node in description["nodes"]:
        parameters = "shared" if node["shares"] else human_count(node["parameters"])
        inputs, shape = ", ".join(node["inputs"]), shape_text(node["shape"])
        cells = (node["name"], type_text(node), inputs, shape, parameters, human_flops(node["flops"]))
        rows.append(Row(node["role"] or "", cells))
    totals = description["totals"]
    total = ("total", "", "", "", human_count(totals["parameters"]), human_flops(totals["flops"]))
    return [*rows, Row("total", total)]


def table(description: Mapping[str, Any]) -> Table:
    """The rows as a rich table, with the memory line below."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    *rows, total = summary_rows(description)
    result = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    result.title, result.caption = Text(str(description["model"])), Text(_caption(description["totals"]))
    # in a narrow terminal only the inputs fold, and with them types of unusual length
    folding = {"inputs"} if all(len(row.cells[1]) <= 14 for row in rows) else {"inputs", "type"}
    for heading in HEADINGS:
        side: Literal["right", "left"] = "right" if heading in ("parameters", "FLOPs") else "left"
        result.add_column(heading, justify=side, no_wrap=heading not in folding, overflow="fold")
    for row in rows:
        result.add_row(*map(Text, row.cells), style=_STYLES.get(row.kind))
    result.add_section()
    result.add_row(*map(Text, total.cells), style="bold")
    return result


def _caption(totals: Mapping[str, Any]) -> str:
    trainable = totals["trainable"]
    note = "" if trainable == totals["parameters"] else f"{human_count(trainable)} parameters are trainable\n"
    batch = totals.get("batch", {"rows": 1})
    return note + memory_line(totals) + (f"\n{batch_line(batch)}" if batch["rows"] > 1 else "")


def _scaled(count: int, base: int, units: Sequence[str]) -> str:
    if count < base:
        return f"{count} {units[0]}"
    size, unit = float(count), 0
    while round(size, 1) >= base and unit < len(units) - 1:
        size, unit = size / base, unit + 1
    return f"{size:.1f} {units[unit]}"
