"""Files become one tree: a file is read, what its `defaults` name is read first, and the file itself wins.

In: a path, or a tree with the directory its `defaults` are relative to, and what is laid over it (`+name`). Out: the
merged tree, without `defaults`. A name that is no file may be a preset or a profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from pathlib import Path as FilePath

from policysmith.config.json_text import read_json
from policysmith.config.located_data import (
    Findings,
    Node,
    Path,
    Place,
    Refused,
    describe,
    mapping,
    merge,
    quote,
    with_edits,
)
from policysmith.config.preset_files import locate, preset_names, profile_names
from policysmith.config.regular_file import read_regular
from policysmith.config.yaml_text import read_yaml
from policysmith.errors import did_you_mean

__all__ = ["is_layer", "lay_over", "read_file", "with_defaults", "without"]


def read_file(path: FilePath, findings: Findings) -> Node | None:
    """The mapping a `.json` or YAML file holds; None, and problems, where there is none.

    Raises:
        Refused: the file cannot be opened.
    """
    try:
        content = read_regular(path)
    except (OSError, ValueError) as error:  # a ValueError is a path with a null character
        raise Refused(_cannot_open(path, error)) from None

    def place_at(line: int, column: int) -> Place:
        return Place(str(path), line, column)

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = place_at(before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        findings.add(place, (), f"not UTF-8: byte 0x{content[error.start]:02x}; save the file as UTF-8")
        return None
    read = read_json if path.suffix.lower() == ".json" else read_yaml
    root = read(text, place_at, findings)
    if root and not isinstance(root.value, dict):
        # Not the text itself: whoever may name a file here need not be one who may read it.
        kind = describe(root) if isinstance(root.value, list | bool | None) else "a single value"
        findings.add(root.place, (), f"the top level must be a mapping, found {kind}")
        return None
    return root


def _cannot_open(path: FilePath, error: Exception) -> str:
    absolute = path.absolute()
    if not isinstance(error, FileNotFoundError):
        return f"cannot read {absolute}: {getattr(error, 'strerror', None) or error}"
    if not absolute.parent.is_dir():
        return f"{absolute} does not exist: there is no directory {absolute.parent}"
    siblings = (sibling.name for sibling in absolute.parent.iterdir())
    return f"{absolute} does not exist{did_you_mean(absolute.name, siblings)}"


Merge = Callable[[Node, Node], Node]


def with_defaults(
    root: Node, directory: FilePath, findings: Findings, file: FilePath | None = None, merge: Merge = merge
) -> Node:
    """`root` laid on the files its `defaults` name; `file` is the one that holds it, `merge(base, over)` how."""
    return _Composer(findings, merge).compose(root, directory, (file,) if file else ())


def is_layer(override: object) -> bool:
    """Whether an override is `+name`, which lays a profile, a preset or a file over the configuration."""
    return isinstance(override, str) and override.startswith("+")


def lay_over(root: Node, overrides: Iterable[str], findings: Findings) -> Node:
    """`root` with each `+name` among the overrides laid over it, in order; files are relative to the working directory.

    They come before all other overrides, wherever they stand among them.
    """
    composer = _Composer(findings)
    for text in filter(is_layer, overrides):
        over = composer.load(text[1:].strip(), FilePath(), (), (), Place(f"override {quote(text)}"))
        root = merge(root, over) if over else root
    return root


class _Composer:
    def __init__(self, findings: Findings, merge: Merge = merge) -> None:
        self._findings, self._merge = findings, merge
        self._done: dict[FilePath, Node | None] = {}

    def compose(self, root: Node, directory: FilePath, chain: tuple[FilePath, ...]) -> Node:
        bases = [self.load(name, directory, chain, path, place) for name, path, place in self._names(root)]
        return reduce(self._merge, [*filter(None, bases), without(root, "defaults")])

    def _names(self, root: Node) -> list[tuple[str, Path, Place | None]]:
        """What `defaults` lists, each with its path and place."""
        node = root.value.get("defaults") if isinstance(root.value, dict) else None
        if node is None:
            return []
        items: Sequence[tuple[Path, Node]] = [(("defaults",), node)]
        if isinstance(node.value, list):
            items = [(("defaults", index), item) for index, item in enumerate(node.value)]
        for path, item in items:
            if not isinstance(item.value, str):
                message = f"defaults takes a file name or a list of file names, found {describe(item)}"
                self._findings.add(item.place, path, message)
        return [(item.value, path, item.place) for path, item in items if isinstance(item.value, str)]

    def load(
        self, name: str, directory: FilePath, chain: tuple[FilePath, ...], path: Path, place: Place | None
    ) -> Node | None:
        """A file with its own defaults, read once however many name it."""
        file = locate(name, directory)
        identity = _identity(file)
        known = [_identity(link) for link in chain]
        if identity in known:
            cycle = chain[known.index(identity) :]
            self._findings.add(place, path, f"defaults form a cycle: {' → '.join(map(str, (*cycle, cycle[0])))}")
            return None
        if identity not in self._done:
            self._done[identity] = self._read(name, file, chain, path, place)
        return self._done[identity]

    def _read(
        self, name: str, file: FilePath, chain: tuple[FilePath, ...], path: Path, place: Place | None
    ) -> Node | None:
        try:
            root = read_file(file, self._findings)
        except Refused as refused:
            self._findings.add(place, path, f"{refused}{_similar_recipe(name)}")
            root = None
        if root is None:
            self._findings.incomplete = True
            return None
        return self.compose(root, file.parent, (*chain, file))


def _similar_recipe(name: str) -> str:
    """A preset or profile of a similar name, unless a file is meant."""
    return "" if FilePath(name).suffix else did_you_mean(name, [*preset_names(), *profile_names()])


def _identity(file: FilePath) -> FilePath:
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a null character: reading it will say so
        return file.absolute()


def without(root: Node, key: str) -> Node:
    """A mapping without one of its keys."""
    assert isinstance(root.value, dict)
    if key not in root.value:
        return root
    entries = {name: node for name, node in root.value.items() if name != key}
    return with_edits(mapping(entries, root.key_places, root.place), root.edits)
