"""Pictures of a described policy: Mermaid text, an SVG drawing, one self-contained HTML page.

The dictionary that `policysmith.describe` returns flows in, text flows out. Nothing is fetched, neither here nor by
the page, and equal descriptions give equal text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from policysmith.errors import WiringError
from policysmith.transform.layout import Box, Point, layered
from policysmith.transform.table import (
    HEADINGS,
    human_bytes,
    human_count,
    human_flops,
    memory_line,
    shape_text,
    summary_rows,
    type_text,
)

__all__ = ["html", "mermaid", "svg"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MARGIN = 28.0
BOX_HEIGHT = 68.0
LONGEST_LINE = 34


@dataclass(frozen=True)
class _Kind:
    """Colours of one kind of box, on a light page and on a dark one."""

    fill: str
    stroke: str
    dark_fill: str
    dark_stroke: str


_KINDS = {
    "hidden": _Kind("#ffffff", "#cfd6e1", "#1d2430", "#3b4657"),
    "input": _Kind("#eaf2ff", "#7aa5ea", "#16263f", "#3f6db5"),
    "policy": _Kind("#e6f6ee", "#5cb88a", "#132d22", "#34855f"),
    "value": _Kind("#fdf1e0", "#dfa04a", "#33260f", "#9c6c26"),
    "output": _Kind("#f1eefc", "#9b8ad6", "#251f3d", "#6656a8"),
}


@dataclass(frozen=True)
class _Vertex:
    """A box: an input or a node, with everything that is written on it."""

    name: str
    kind: str
    type: str
    shape: str
    note: str
    tooltip: str
    shared: bool = False


@dataclass(frozen=True)
class _Wire:
    """An arrow: one tensor on its way from vertex `source` to vertex `target`."""

    source: int
    target: int
    name: str
    shape: str


def mermaid(description: Mapping[str, Any]) -> str:
    """The graph as a Mermaid flowchart: `name`, `type · shape · params` in the boxes, shapes at the arrows.

    A component that is assembled from parts (a transformer) is a frame around them.
    """
    vertices, wires = _read(description)
    assemblies = [()] * len(description["inputs"]) + [node.get("assembly", ()) for node in description["nodes"]]
    lines = ["flowchart TD"]
    for index, (vertex, stages) in enumerate(zip(vertices, assemblies, strict=True)):
        detail = " · ".join(part for part in (vertex.type, vertex.shape, vertex.note) if part)
        label = f"{_mermaid_text(vertex.name)}<br/>{_mermaid_text(detail)}"
        if stages:
            lines += [*_mermaid_frame(f"n{index}", label, stages, "    "), f"    class n{index} {vertex.kind}"]
            continue
        opening, closing = ("([", "])") if vertex.kind == "input" else ("(", ")")
        lines.append(f'    n{index}{opening}"{label}"{closing}:::{vertex.kind}')
    lines += [f'    n{wire.source} -->|"{_mermaid_text(wire.shape)}"| n{wire.target}' for wire in wires]
    used = {vertex.kind for vertex in vertices}
    for name, kind in _KINDS.items():
        if name in used:
            lines.append(f"    classDef {name} fill:{kind.fill},stroke:{kind.stroke},color:#1b2330")
    return "\n".join(lines) + "\n"


def svg(description: Mapping[str, Any]) -> str:
    """The graph as an SVG drawing that paints its own background, light or dark as the reader prefers.

    Boxes and arrows carry the details as tooltips. Raises `WiringError` when a node reads what nothing produces or the
    nodes form a cycle.
    """
    vertices, wires = _read(description)
    layout = layered([(_box_width(v), BOX_HEIGHT) for v in vertices], [(w.source, w.target) for w in wires])
    width, height = _number(layout.width + 2 * MARGIN), _number(layout.height + 2 * MARGIN)
    title = f"{description['model']}: {human_count(description['totals']['parameters'])} parameters"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'role="img" font-family="{FONT}" text-anchor="middle">',
            f"<title>{_text(title)}</title>",
            f"<style>{_dark_style()}</style>",
            f'<rect class="ps-page" width="{width}" height="{height}" rx="12" fill="#f8f9fb"/>',
            f'<g transform="translate({_number(MARGIN)} {_number(MARGIN)})">',
            '<g class="ps-wires" fill="none" stroke="#9aa5b5" stroke-width="1.5">',
            *_wire_elements(vertices, wires, layout.routes),
            "</g>",
            *(_box_element(vertex, box) for vertex, box in zip(vertices, layout.boxes, strict=True)),
            "</g>",
            "</svg>",
            "",
        ]
    )


def html(description: Mapping[str, Any]) -> str:
    """One page with the totals, the drawing and the table; it needs nothing but itself."""
    totals, title = description["totals"], _text(str(description["model"]))
    facts = {"parameters": human_count(totals["parameters"])}
    if totals["trainable"] != totals["parameters"]:
        facts["trainable"] = human_count(totals["trainable"])
    facts["per observation"] = human_flops(totals["flops"])
    facts["weights"] = human_bytes(totals["parameter_bytes"] + totals["buffer_bytes"])
    if totals["state_bytes"]:
        facts["state"] = human_bytes(totals["state_bytes"])
    figures = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return _PAGE.format(
        title=title,
        style=_PAGE_STYLE,
        figures=figures,
        drawing=svg(description),
        table=_table_element(description),
        memory=_text(memory_line(totals)),
    )


def _read(description: Mapping[str, Any]) -> tuple[list[_Vertex], list[_Wire]]:
    """Inputs and nodes as vertices, and a wire for every name that a node reads."""
    inputs, nodes = description["inputs"], description["nodes"]
    vertices = [_input_vertex(entry) for entry in inputs]
    vertices += [_node_vertex(node, description["outputs"]) for node in nodes]
    given = {entry["name"]: (index, shape_text(entry["shape"])) for index, entry in enumerate(inputs)}
    made = [_products(node, len(inputs) + index) for index, node in enumerate(nodes)]
    anywhere = {name: product for products in reversed(made) for name, product in products.items()} | given
    wires = []
    for index, node in enumerate(nodes):
        for name in node["inputs"]:
            source, shape = _producer(name, given, anywhere, node["name"])
            wires.append(_Wire(source, len(inputs) + index, name, shape))
        given |= made[index]  # a node may write over what it reads: later readers get the new value
    return vertices, wires


def _products(node: Mapping[str, Any], index: int) -> dict[str, tuple[int, str]]:
    names, shape = node["outputs"], node["shape"]
    several = bool(shape) and isinstance(shape[0], list | tuple) and len(shape) == len(names)
    return {name: (index, shape_text(shape[i] if several else shape)) for i, name in enumerate(names)}


def _producer(
    name: str, given: Mapping[str, tuple[int, str]], anywhere: Mapping[str, tuple[int, str]], reader: str
) -> tuple[int, str]:
    """What makes `name`: the node before the reader, else any; of `observation.image` also `observation`."""
    for known in (given, anywhere):
        whole = name
        while whole:
            if whole in known:
                return known[whole]
            whole = whole.rpartition(".")[0]
    raise WiringError(f"{reader!r} reads {name!r}, which no input and no node provides")


def _input_vertex(entry: Mapping[str, Any]) -> _Vertex:
    name, shape, dtype = entry["name"], shape_text(entry["shape"]), str(entry["dtype"])
    return _Vertex(name, "input", "input", shape, dtype, f"{name}: input ({shape}, {dtype})")


def _node_vertex(node: Mapping[str, Any], outputs: Sequence[str]) -> _Vertex:
    kind = node["role"] if node["role"] in _KINDS else "hidden"
    if kind == "hidden" and any(name in outputs for name in node["outputs"]):
        kind = "output"
    shape, shared = shape_text(node["shape"]), bool(node["shares"])
    note = f"{human_count(node['parameters'])} params" if node["parameters"] and not shared else ""
    facts = [
        f"{node['name']}: {type_text(node)}",
        f"in: {', '.join(node['inputs'])}",
        f"out: {', '.join(node['outputs'])} ({shape}, {node['dtype']})",
        f"{human_count(node['parameters'])} parameters, {human_count(node['trainable'])} trainable",
        f"{human_flops(node['flops'])} per observation",
    ]
    if node["state_bytes"]:
        facts.append(f"state: {human_bytes(node['state_bytes'])}")
    return _Vertex(node["name"], kind, type_text(node), shape, note, "\n".join(facts), shared)


def _mermaid_frame(name: str, label: str, stages: Sequence[Mapping[str, Any]], indent: str) -> list[str]:
    """A subgraph with its stages one after another; stages of stages are frames in it."""
    lines = [f'{indent}subgraph {name}["{label}"]', f"{indent}    direction TB"]
    names = [f"{name}_{i}" for i in range(len(stages))]
    for inner, stage in zip(names, stages, strict=True):
        text = "<br/>".join(_mermaid_text(part) for part in (stage["name"], stage["detail"]) if part)
        if stage["parts"]:
            lines += _mermaid_frame(inner, text, stage["parts"], indent + "    ")
        else:
            lines.append(f'{indent}    {inner}("{text}")')
    lines += [f"{indent}    {one} --> {other}" for one, other in pairwise(names)]
    return [*lines, f"{indent}end"]


def _mermaid_text(text: str) -> str:
    """Text that Mermaid can read neither as its own syntax nor as markup."""
    return "".join(f"#{ord(c)};" if c in '"#&<>`\\|[]{}' else c for c in " ".join(text.split()))


@dataclass(frozen=True)
class _Line:
    """One line of text in a box; `baseline` is measured from the top of the box."""

    style: str
    attributes: str
    size: float
    bold: bool
    baseline: float


_LINES = (
    _Line("ps-name", 'font-size="13.5" font-weight="600" fill="#1b2330"', 13.5, True, 25.0),
    _Line("ps-type", 'font-size="12" fill="#46536a"', 12.0, False, 42.5),
    _Line("ps-note", 'font-size="11" fill="#69758a"', 11.0, False, 58.0),
)


def _texts(vertex: _Vertex) -> tuple[str, str, str]:
    note = " · ".join(part for part in (vertex.shape, vertex.note) if part)
    return _shortened(vertex.name), _shortened(vertex.type), _shortened(note)


def _shortened(text: str) -> str:
    text, half = " ".join(text.split()), LONGEST_LINE // 2
    return text if len(text) <= LONGEST_LINE else f"{text[:half]}…{text[1 - half :]}"


def _box_width(vertex: _Vertex) -> float:
    widths = (_text_width(text, line) for text, line in zip(_texts(vertex), _LINES, strict=True))
    return float(round(max(96.0, *widths) + 32.0))


def _text_width(text: str, line: _Line) -> float:
    """An upper estimate for the common system fonts, which differ by a tenth."""
    ems = sum(
        1.05 if ord(c) > 0x2E7F else 0.92 if c in "mwMW@—…" else 0.36 if c in " ijlt.,:;|!'()" else 0.63 for c in text
    )
    return ems * line.size * (1.06 if line.bold else 1.0)


def _box_element(vertex: _Vertex, box: Box) -> str:
    kind = _KINDS[vertex.kind]
    radius = _number(box.height / 2 if vertex.kind == "input" else 10.0)
    dashes = ' stroke-dasharray="5 3"' if vertex.shared else ""
    texts = "".join(
        f'<text class="{line.style}" x="{_number(box.width / 2)}" y="{_number(line.baseline)}" {line.attributes}>'
        f"{_text(text)}</text>"
        for text, line in zip(_texts(vertex), _LINES, strict=True)
    )
    return (
        f'<g class="ps-box ps-{vertex.kind}" transform="translate({_number(box.x)} {_number(box.y)})">'
        f"<title>{_text(vertex.tooltip)}</title>"
        f'<rect width="{_number(box.width)}" height="{_number(box.height)}" rx="{radius}" fill="{kind.fill}" '
        f'stroke="{kind.stroke}" stroke-width="1.5"{dashes}/>{texts}</g>'
    )


def _wire_elements(vertices: Sequence[_Vertex], wires: Sequence[_Wire], routes: Sequence[Sequence[Point]]) -> list[str]:
    """One element a tensor, with an arrow to each of its readers; shared stretches are drawn once."""
    readers: dict[tuple[int, str], list[int]] = {}
    for index, wire in enumerate(wires):
        readers.setdefault((wire.source, wire.name), []).append(index)
    elements = []
    drawn: set[tuple[Point, Point]] = set()
    for indices in readers.values():
        first = wires[indices[0]]
        names = [vertices[wires[i].target].name for i in indices]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        tooltip = f"{first.name} ({first.shape}) → {', '.join(names[:8])}{more}"
        paths = "".join(_arrow(routes[i], drawn) for i in indices)
        elements.append(f'<g class="ps-wire"><title>{_text(tooltip)}</title>{paths}</g>')
    return elements


def _arrow(route: Sequence[Point], drawn: set[tuple[Point, Point]]) -> str:
    start = 0
    while start < len(route) - 2 and (route[start], route[start + 1]) in drawn:
        start += 1
    drawn.update(pairwise(route))
    x, y = route[-1]
    line = _curve([*route[start:-1], (x, y - 8)])
    tip = f"M{_number(x - 4)} {_number(y - 8)}L{_number(x)} {_number(y - 1)}L{_number(x + 4)} {_number(y - 8)}Z"
    return f'<path d="{line}"/><path class="ps-tip" d="{tip}" fill="#9aa5b5" stroke="none"/>'


def _curve(route: Sequence[Point]) -> str:
    """Straight where the route is, else an S that leaves and arrives vertically: it stays between its layers."""
    steps = [f"M{_number(route[0][0])} {_number(route[0][1])}"]
    for (x, y), (to_x, to_y) in pairwise(route):
        if x != to_x:
            middle = _number((y + to_y) / 2)
            steps.append(f"C{_number(x)} {middle} {_number(to_x)} {middle} {_number(to_x)} {_number(to_y)}")
        elif steps[-1].startswith("V"):
            steps[-1] = f"V{_number(to_y)}"
        else:
            steps.append(f"V{_number(to_y)}")
    return "".join(steps)


def _dark_style() -> str:
    """Rules win over attributes, so that renderers without style sheets still draw the light picture."""
    dark = [
        ".ps-page{fill:#12161d}.ps-wires{stroke:#66738a}.ps-tip{fill:#66738a}",
        ".ps-name{fill:#eef2f8}.ps-type{fill:#b6c1d2}.ps-note{fill:#8f9bae}",
        *(f".ps-{name} rect{{fill:{kind.dark_fill};stroke:{kind.dark_stroke}}}" for name, kind in _KINDS.items()),
    ]
    return (
        ".ps-wire:hover{stroke:#3b82f6;stroke-width:2.5}.ps-wire:hover .ps-tip{fill:#3b82f6}"
        f"@media (prefers-color-scheme: dark){{{''.join(dark)}}}"
    )


def _table_element(description: Mapping[str, Any]) -> str:
    rows = summary_rows(description)
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    body = "\n".join(
        f'<tr class="{_text(row.kind)}">' + "".join(f"<td>{_text(cell)}</td>" for cell in row.cells) + "</tr>"
        for row in rows
    )
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _text(text: str) -> str:
    """Escaped for XML; characters that XML 1.0 forbids become a replacement character."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


_PAGE_STYLE = f"""
:root {{ color-scheme: light dark; --page: #ffffff; --card: #f8f9fb; --text: #1b2330; --quiet: #5f6b7e; --line: #e3e7ee;
  --input: #7aa5ea; --policy: #5cb88a; --value: #dfa04a; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #0c0f14; --card: #12161d; --text: #eef2f8; --quiet: #98a4b7;
  --line: #262e3a; }} }}
body {{ margin: 0 auto; max-width: 1180px; padding: 40px 24px 64px; background: var(--page); color: var(--text);
  font: 15px/1.5 {FONT}; }}
h1 {{ margin: 0 0 20px; font-size: 26px; font-weight: 650; letter-spacing: -0.01em; overflow-wrap: anywhere; }}
dl {{ display: flex; flex-wrap: wrap; gap: 12px 40px; margin: 0 0 28px; }}
dt {{ color: var(--quiet); font-size: 13px; }}
dd {{ margin: 0; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }}
figure {{ margin: 0 0 32px; overflow: auto; max-height: 85vh; background: var(--card); border-radius: 12px;
  border: 1px solid var(--line); }}
figure svg {{ display: block; margin: 0 auto; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 8px 12px; text-align: left; border-bottom: 1px solid var(--line); }}
th {{ color: var(--quiet); font-weight: 500; font-size: 13px; white-space: nowrap; }}
td:first-child {{ font-weight: 600; }}
th:nth-child(n+5), td:nth-child(n+5) {{ text-align: right; white-space: nowrap; }}
td:first-child::before {{ content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 10px;
  border-radius: 50%; background: var(--line); }}
.input td:first-child::before {{ background: var(--input); }}
.policy td:first-child::before {{ background: var(--policy); }}
.value td:first-child::before {{ background: var(--value); }}
.total td {{ font-weight: 600; border-bottom: 0; }}
.total td:first-child::before {{ visibility: hidden; }}
footer {{ margin-top: 12px; padding: 0 12px; color: var(--quiet); font-size: 13px; }}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<dl>{figures}</dl>
<figure>
{drawing}</figure>
<div class="scroll">
{table}
</div>
<footer>{memory}</footer>
</body>
</html>
"""
