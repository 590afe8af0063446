"""Which skills need which, and which versions come from which: as a tree, as Mermaid text, as data.

In: records of a library. Out: a `Picture`, which draws itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.tree import Tree

    from policysmith.skills.library.index import SkillRecord, VersionRecord

__all__ = ["Picture", "lineage", "needs"]


@dataclass(frozen=True)
class Picture:
    """Labels by node, and for each node those that it comes from or needs."""

    title: str
    labels: Mapping[str, str]
    sources: Mapping[str, Sequence[str]]

    def describe(self) -> dict[str, Any]:
        """Plain data for JSON."""
        edges = [[source, node] for node, sources in self.sources.items() for source in sources]
        return {"nodes": dict(self.labels), "edges": edges}

    def tree(self) -> Tree:
        """Sources above what comes from them; a node with several sources hangs below each, drawn out once."""
        from rich.text import Text
        from rich.tree import Tree

        root, drawn = Tree(Text(self.title)), set[str]()
        below: dict[str, list[str]] = {}
        for node, sources in self.sources.items():
            for source in sources:
                below.setdefault(source, []).append(node)
        for first in sorted(self.labels, key=lambda node: bool(self.sources.get(node))):  # the others: of a circle
            waiting = [(root, first)] * (first not in drawn)
            while waiting:
                parent, node = waiting.pop()
                again = node in drawn and bool(below.get(node))
                branch = parent.add(Text(f"{self.labels[node]}{' …' if again else ''}"))
                if node not in drawn:
                    drawn.add(node)
                    waiting += [(branch, child) for child in reversed(below.get(node, []))]
        return root

    def mermaid(self, *, fenced: bool = False) -> str:
        """The same as a Mermaid flowchart; `fenced` for Markdown."""
        numbers = {node: f"n{number}" for number, node in enumerate(self.labels)}
        lines = ["flowchart TD"]
        lines += [f'  {numbers[node]}["{_escaped(label)}"]' for node, label in self.labels.items()]
        lines += [f"  {numbers[source]} --> {numbers[node]}" for node, sources in self.sources.items()
                  for source in sources]  # fmt: skip
        text = "\n".join(lines) + "\n"
        return f"```mermaid\n{text}```\n" if fenced else text


def needs(skills: Sequence[SkillRecord]) -> Picture:
    """Skills below those that they need."""
    labels = {skill.name: f"{skill.name}{'' if skill.head else ' (not trained)'}" for skill in skills}
    sources = {skill.name: [name for name in skill.dependencies if name in labels] for skill in skills}
    return Picture("skills", labels, sources)


def lineage(name: str, versions: Sequence[VersionRecord]) -> Picture:
    """Versions below those that they come from; parents that were pruned are left out."""
    labels = {record.version: _label(record) for record in versions}
    sources = {record.version: [parent for parent in record.parents if parent in labels] for record in versions}
    return Picture(name, labels, sources)


def _label(record: VersionRecord) -> str:
    score = record.scores.get(record.skill)
    words = [record.short, f"{record.frames:,} frames", *([] if score is None else [f"score {score:.3g}"])]
    names = [*(["head"] if record.is_head else []), *record.branches, *([record.status] * (record.status != "trained"))]
    return "  ".join([*words, *names])


def _escaped(label: str) -> str:
    """Text that Mermaid takes as it is."""
    return label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
