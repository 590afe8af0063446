"""Layered layout of a directed acyclic graph, top to bottom (Sugiyama, Tagawa and Toda 1981).

Box sizes and edges flow in; box positions and one polyline an edge flow out. Everything is a function of the
input order, so equal graphs give equal pictures. Long edges pass through one bend a layer, and the edges of one
source share those bends: a skip connection with ten readers is one line with ten branches.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from policysmith.errors import WiringError

__all__ = ["Box", "Layout", "Point", "layered"]

Point = tuple[float, float]
Edge = tuple[int, int]

COLUMN_GAP = 30.0
BEND_GAP = 20.0
ROW_GAP = 38.0
PORT_GAP = 18.0
SNAP = 14.0


@dataclass(frozen=True)
class Box:
    """One placed vertex: its top left corner, its size and its layer, counted from the top."""

    x: float
    y: float
    width: float
    height: float
    layer: int


@dataclass(frozen=True)
class Layout:
    """Boxes in the order of the sizes, routes in the order of the edges, from (0, 0) to (width, height).

    A route has an even number of points: odd stretches cross the gap between two layers, even ones run straight
    down beside the boxes of a layer.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]
    routes: tuple[tuple[Point, ...], ...]


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """Place boxes of the given (width, height) so that every edge (source, target) points down.

    Raises `WiringError` when the edges form a cycle.
    """
    if not sizes:
        return Layout(0.0, 0.0, (), ())
    graph = _with_bends(sizes, edges, _layers(len(sizes), edges))
    _reduce_crossings(graph)
    centres = _columns(graph)
    bands = _bands(graph, centres)
    boxes = tuple(
        Box(centres[v] - w / 2, (sum(bands[graph.layer[v]]) - h) / 2, w, h, graph.layer[v])
        for v, (w, h) in enumerate(sizes)
    )
    routes = _routes(graph, edges, centres, bands, boxes)
    width = max(centre + graph.width[v] / 2 for v, centre in enumerate(centres))
    return Layout(width, bands[-1][1], boxes, routes)


@dataclass
class _Graph:
    """The graph with its bends: vertices up to `num_boxes` are boxes, later ones are bends of long edges."""

    num_boxes: int
    width: list[float]
    height: list[float]
    layer: list[int]
    rows: list[list[int]]
    up: list[list[int]] = field(default_factory=list)
    down: list[list[int]] = field(default_factory=list)
    chains: list[list[int]] = field(default_factory=list)

    def is_bend(self, vertex: int) -> bool:
        return vertex >= self.num_boxes

    def places(self) -> list[int]:
        place = [0] * len(self.layer)
        for row in self.rows:
            for index, vertex in enumerate(row):
                place[vertex] = index
        return place


def _layers(num_boxes: int, edges: Sequence[Edge]) -> list[int]:
    """Longest path from the sources; then a vertex with more readers than inputs moves down to its first reader."""
    before: list[dict[int, None]] = [{} for _ in range(num_boxes)]
    after: list[dict[int, None]] = [{} for _ in range(num_boxes)]
    for source, target in edges:
        before[target][source] = None
        after[source][target] = None
    order = _topological(dict(enumerate(before)))
    layer = [0] * num_boxes
    for vertex in order:
        layer[vertex] = max((layer[v] + 1 for v in before[vertex]), default=0)
    for vertex in reversed(order):
        if before[vertex] and len(after[vertex]) > len(before[vertex]):
            layer[vertex] = min(layer[v] for v in after[vertex]) - 1
    return layer


def _topological(before: dict[int, dict[int, None]]) -> list[int]:
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise WiringError(f"the graph has a cycle through {len(error.args[1]) - 1} components") from None


def _with_bends(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge], layer: list[int]) -> _Graph:
    graph = _Graph(len(sizes), [w for w, _ in sizes], [h for _, h in sizes], layer, [[] for _ in range(max(layer) + 1)])
    graph.up, graph.down = [[] for _ in sizes], [[] for _ in sizes]
    bends: dict[Edge, int] = {}
    for source, target in edges:
        chain = [source]
        for level in range(layer[source] + 1, layer[target]):
            if (source, level) not in bends:
                bends[source, level] = _add_bend(graph, level)
            chain.append(bends[source, level])
        chain.append(target)
        graph.chains.append(chain)
        for upper, lower in pairwise(chain):
            if lower not in graph.down[upper]:
                graph.down[upper].append(lower)
                graph.up[lower].append(upper)
    _first_order(graph)
    return graph


def _add_bend(graph: _Graph, level: int) -> int:
    graph.width.append(0.0)
    graph.height.append(0.0)
    graph.layer.append(level)
    graph.up.append([])
    graph.down.append([])
    return len(graph.layer) - 1


def _first_order(graph: _Graph) -> None:
    """Depth first from the sources: a chain and its skips start side by side."""
    seen: set[int] = set()
    stack = [v for v in range(graph.num_boxes) if not graph.up[v]][::-1]
    while stack:
        vertex = stack.pop()
        if vertex not in seen:
            seen.add(vertex)
            graph.rows[graph.layer[vertex]].append(vertex)
            stack.extend(reversed(graph.down[vertex]))


def _reduce_crossings(graph: _Graph, patience: int = 4) -> None:
    """Barycentre sweeps, down and up in turn, until `patience` of them in a row bring no fewer crossings."""
    best, fewest, failures = [list(row) for row in graph.rows], _crossings(graph), 0
    sweep = 0
    while fewest and failures < patience:
        _sweep(graph, downwards=sweep % 2 == 0)
        if len(graph.layer) <= 1_500:  # quadratic in the degrees: too slow for the largest graphs
            _exchange_neighbours(graph)
        crossings = _crossings(graph)
        failures = 0 if crossings < fewest else failures + 1
        if crossings < fewest:
            best, fewest = [list(row) for row in graph.rows], crossings
        sweep += 1
    graph.rows = best


def _sweep(graph: _Graph, downwards: bool) -> None:
    neighbours = graph.up if downwards else graph.down
    place = graph.places()
    for row in graph.rows if downwards else reversed(graph.rows):
        centre = {
            v: sum(place[n] for n in neighbours[v]) / len(neighbours[v]) if neighbours[v] else float(place[v])
            for v in row
        }
        row.sort(key=centre.__getitem__)
        for index, vertex in enumerate(row):
            place[vertex] = index


def _exchange_neighbours(graph: _Graph) -> None:
    place = graph.places()
    for row in graph.rows:
        for i in range(len(row) - 1):
            left, right = row[i], row[i + 1]
            gain = 0
            for side in (graph.up, graph.down):
                gain += _inversions((place[a], place[b]) for a in side[left] for b in side[right])
            if gain > 0:
                row[i], row[i + 1] = right, left
                place[left], place[right] = i + 1, i


def _inversions(pairs: Iterable[tuple[int, int]]) -> int:
    return sum((a > b) - (a < b) for a, b in pairs)


def _crossings(graph: _Graph) -> int:
    place = graph.places()
    total = 0
    for row in graph.rows:
        seen: list[int] = []
        for vertex in row:
            ends = sorted(place[v] for v in graph.down[vertex])
            total += sum(len(seen) - bisect_left(seen, end + 1) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _columns(graph: _Graph) -> list[float]:
    """The horizontal centre of every vertex, the leftmost edge at zero."""
    column = _straight_columns(graph)
    gaps = _gaps(graph, column)
    pulls = _pulls(graph, column)
    order = _topological({c: {left: None for left, _ in gaps.left[c]} for c in range(len(pulls))})
    x = _packed(order, gaps.left, [0.0] * len(pulls), 1)
    for _ in range(200 if len(order) < 400 else 24):
        x = _relaxed(order, gaps, pulls, x)
    _snap(gaps, pulls, x)
    centres = [round(x[c], 1) for c in column]
    leftmost = min(centres[v] - graph.width[v] / 2 for v in range(len(centres)))
    return [centre - leftmost for centre in centres]


def _straight_columns(graph: _Graph) -> list[int]:
    """Vertices that one vertical line must join, as a column number each (Brandes and Köpf 2002, alignment)."""
    place = graph.places()
    middle_up = [_middle(graph, neighbours, place) for neighbours in graph.up]
    middle_down = [_middle(graph, neighbours, place) for neighbours in graph.down]

    def urgency(upper: int, lower: int) -> int | None:
        """0 inside a long edge, 1 on the main line, 2 at the end of a long edge, None where a bend is welcome."""
        bends = graph.is_bend(upper) + graph.is_bend(lower)
        if bends < 2 and (middle_down[upper] != lower or middle_up[lower] != upper):
            return None
        return (1, 2, 0)[bends]

    above: dict[int, int] = {}
    for row in graph.rows:
        wishes = [(urgency(v, n), place[v], place[n], v, n) for v in row for n in graph.down[v]]
        taken: list[Edge] = []
        for _, upper, lower, vertex, neighbour in sorted(wish for wish in wishes if wish[0] is not None):
            at = bisect_left(taken, (upper, lower))
            free_left = at == 0 or (taken[at - 1][0] < upper and taken[at - 1][1] < lower)
            if free_left and (at == len(taken) or (taken[at][0] > upper and taken[at][1] > lower)):
                taken.insert(at, (upper, lower))
                above[neighbour] = vertex
    return _numbered(graph, above)


def _numbered(graph: _Graph, above: dict[int, int]) -> list[int]:
    column, count = [0] * len(graph.layer), 0
    for row in graph.rows:
        for vertex in row:
            if vertex in above:
                column[vertex] = column[above[vertex]]
            else:
                column[vertex], count = count, count + 1
    return column


def _middle(graph: _Graph, neighbours: list[int], place: list[int]) -> int | None:
    """The middle neighbour, if there is one; skips count only where nothing else is."""
    boxes = [v for v in neighbours if not graph.is_bend(v)] or neighbours
    return sorted(boxes, key=place.__getitem__)[len(boxes) // 2] if len(boxes) % 2 else None


@dataclass
class _Gaps:
    """For every column its neighbours on either side with the distance that must stay between the centres."""

    left: list[list[tuple[int, float]]]
    right: list[list[tuple[int, float]]]


def _gaps(graph: _Graph, column: list[int]) -> _Gaps:
    distance: dict[Edge, float] = {}
    for row in graph.rows:
        for a, b in pairwise(row):
            gap = BEND_GAP if graph.is_bend(a) or graph.is_bend(b) else COLUMN_GAP
            need = (graph.width[a] + graph.width[b]) / 2 + gap
            key = column[a], column[b]
            distance[key] = max(need, distance.get(key, 0.0))
    gaps = _Gaps([[] for _ in range(max(column) + 1)], [[] for _ in range(max(column) + 1)])
    for (a, b), need in distance.items():
        gaps.right[a].append((b, need))
        gaps.left[b].append((a, need))
    return gaps


def _pulls(graph: _Graph, column: list[int]) -> list[list[tuple[int, float]]]:
    """For every column the columns its edges lead to, with weights: skips bend so that the main line need not."""
    pulls: list[list[tuple[int, float]]] = [[] for _ in range(max(column) + 1)]
    for vertex, neighbours in enumerate(graph.down):
        for other in neighbours:
            a, b = column[vertex], column[other]
            if a != b:
                weight = 0.1 if graph.is_bend(vertex) or graph.is_bend(other) else 1.0
                pulls[a].append((b, weight))
                pulls[b].append((a, weight))
    return pulls


def _relaxed(order: list[int], gaps: _Gaps, pulls: list[list[tuple[int, float]]], x: list[float]) -> list[float]:
    """Half a step of every column towards its neighbours, then the gaps restored.

    Pushing right and pushing left both keep the gaps, hence so does their mean, which favours neither side.
    """
    wish = list(x)
    for c, pull in enumerate(pulls):
        if pull:
            wish[c] = (x[c] + sum(x[d] * w for d, w in pull) / sum(w for _, w in pull)) / 2
    right = _packed(order, gaps.left, wish, 1)
    left = _packed(order[::-1], gaps.right, wish, -1)
    return [(a + b) / 2 for a, b in zip(left, right, strict=True)]


def _snap(gaps: _Gaps, pulls: list[list[tuple[int, float]]], x: list[float]) -> None:
    """Straighten what is almost straight, where there is room."""
    for c, pull in enumerate(pulls):
        near = sorted((abs(x[d] - x[c]), x[d]) for d, weight in pull if weight == 1.0)
        if near and 0 < near[0][0] <= SNAP:
            to = near[0][1]
            fits_left = all(to - x[d] >= need for d, need in gaps.left[c])
            if fits_left and all(x[d] - to >= need for d, need in gaps.right[c]):
                x[c] = to


def _packed(order: list[int], gaps: list[list[tuple[int, float]]], wish: list[float], sign: int) -> list[float]:
    x = list(wish)
    for c in order:
        for d, need in gaps[c]:
            if (x[c] - x[d]) * sign < need:
                x[c] = x[d] + sign * need
    return x


def _bands(graph: _Graph, centres: list[float]) -> list[tuple[float, float]]:
    """Top and bottom of every row; where edges lead far aside, the gap below grows to keep them legible."""
    bands, y = [], 0.0
    for row in graph.rows:
        height = max(graph.height[v] for v in row)
        bands.append((y, y + height))
        reach = max((abs(centres[v] - centres[n]) for v in row for n in graph.down[v]), default=0.0)
        y += height + ROW_GAP + min(120.0, max(0.0, reach - 80.0) * 0.1)
    return bands


def _routes(
    graph: _Graph, edges: Sequence[Edge], centres: list[float], bands: list[tuple[float, float]], boxes: Sequence[Box]
) -> tuple[tuple[Point, ...], ...]:
    entries = _entries(graph, edges, centres, boxes)
    routes = []
    for edge, (source, target) in enumerate(edges):
        route = [(centres[source], boxes[source].y + boxes[source].height)]
        for bend in graph.chains[edge][1:-1]:
            route += [(centres[bend], y) for y in bands[graph.layer[bend]]]
        route.append((entries[edge], boxes[target].y))
        routes.append(tuple(route))
    return tuple(routes)


def _entries(graph: _Graph, edges: Sequence[Edge], centres: list[float], boxes: Sequence[Box]) -> list[float]:
    """Where on the upper side of its target each edge ends: side by side, in the order in which they arrive."""
    arrivals: dict[int, list[int]] = {}
    for edge, (_, target) in enumerate(edges):
        arrivals.setdefault(target, []).append(edge)
    entries = [0.0] * len(edges)
    for target, arriving in arrivals.items():
        origin = {edge: centres[graph.chains[edge][-2]] for edge in arriving}
        arriving.sort(key=origin.__getitem__)
        straight = [i for i, edge in enumerate(arriving) if abs(origin[edge] - centres[target]) < 1]
        middle = straight[0] if len(straight) == 1 else (len(arriving) - 1) / 2
        gap = min(PORT_GAP, 0.4 * boxes[target].width / max(middle, len(arriving) - 1 - middle, 1))
        for i, edge in enumerate(arriving):
            entries[edge] = centres[target] + (i - middle) * gap
    return entries
