"""One direction: lower rooms never import higher ones, and every file is small and says what it is."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from policysmith.registry import ROOMS

PACKAGE = Path(__file__).parent.parent / "policysmith"
MAX_LINES = 500

# What each room may import of the others. A new room is added here, with the least it needs.
LOW = {"errors", "lazy_names"}
DATA = LOW | {"config", "registry"}
TENSORS = DATA | {"ops", "types"}
WRAPPERS = TENSORS | {"parts", "graph"}
POLICY = WRAPPERS | {"compile", "wrappers"}
STORE = POLICY | {"policy"}
TRAINING = STORE | {"store"}
SKILLS = TRAINING | {"training"}
EVERYTHING = SKILLS | {"transform", "skills", "api"}
# Public names over the dialects: nothing but names, and nobody else imports either.
FACES = {"__init__", "compat", "modules", "importers"}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "lazy_names": set(),
    "ops": LOW,
    "config": LOW,
    "registry": LOW | {"config"},
    "types": {"config"},
    "parts": TENSORS,
    "graph": TENSORS,
    "compile": TENSORS | {"graph"},
    "policy": POLICY,
    "wrappers": WRAPPERS,
    "store": STORE,
    "training": TRAINING,
    "skills": SKILLS,
    "transform": TRAINING,
    "testing": STORE,
    "api": SKILLS | {"transform", "skills"},
    "tuning": SKILLS | {"api"},
    "dialects": EVERYTHING,
    "compat": LOW | {"dialects"},
    "modules": LOW | {"dialects"},
    "importers": LOW | {"registry", "dialects"},
    "cli": EVERYTHING | {"tuning"},
    "__main__": {"cli"},
    "__init__": EVERYTHING | {"modules", "dialects"},
}

# Packages from elsewhere that a room keeps away from; everything else is free.
FORBIDDEN: dict[str, set[str]] = {
    "errors": {"torch", "numpy", "tensordict", "gymnasium", "pydantic", "omegaconf", "yaml"},
    "config": {"torch", "numpy", "tensordict", "gymnasium"},
    "registry": {"torch", "numpy", "tensordict", "gymnasium"},
    "ops": {"numpy", "tensordict", "gymnasium", "pydantic", "omegaconf", "yaml"},
    "parts": {"tensordict", "gymnasium", "omegaconf", "yaml"},
    "graph": {"gymnasium", "omegaconf", "yaml"},
    "compile": {"gymnasium", "omegaconf", "yaml"},
}


@dataclass(frozen=True)
class Import:
    """One import: who imports what, where; whether only for type checkers, in a call, or by a name in a text."""

    file: str
    line: int
    room: str
    target: str
    typing_only: bool
    lazy: bool
    by_name: bool = False

    @property
    def top(self) -> str:
        """The imported package, or the room of ours."""
        parts = self.target.split(".")
        return parts[1] if parts[0] == "policysmith" and len(parts) > 1 else parts[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def is_typing_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk(node: ast.AST, typing_only: bool = False, lazy: bool = False) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """Every import statement below a node, with whether it stands in a TYPE_CHECKING block or in a function."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, typing_only, lazy
        return
    for child in ast.iter_child_nodes(node):
        guarded = typing_only or (is_typing_guard(node) and child in node.body)  # type: ignore[attr-defined]
        yield from walk(child, guarded, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def named(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Modules of ours that a text names in full, `"policysmith.store"`: whoever does loads them by that name."""
    known = {module_name(file) for file in files()} - {"policysmith"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
            yield node, node.value


def targets(node: ast.stmt, file: Path) -> list[str]:
    """The full names that a statement imports; `from policysmith.graph import spec` may name a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert isinstance(node, ast.ImportFrom)
    base = node.module or ""
    if node.level:
        package = module_name(file).split(".")
        package = package if file.name == "__init__.py" else package[:-1]
        base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
    return [f"{base}.{alias.name}" if base.split(".")[0] == "policysmith" else base for alias in node.names]


@cache
def imports() -> tuple[Import, ...]:
    found = []
    for file in files():
        tree, name = ast.parse(file.read_text(encoding="utf-8")), str(file.relative_to(PACKAGE.parent))
        for node, typing_only, lazy in walk(tree):
            for target in targets(node, file):
                found.append(Import(name, node.lineno, room_of(file), target, typing_only, lazy))
        found += [Import(name, text.lineno, room_of(file), target, False, True, True) for text, target in named(tree)]
    return tuple(found)


def ours() -> list[Import]:
    return [i for i in imports() if i.target.split(".")[0] == "policysmith" and i.target != "policysmith"]


def test_the_reader_of_imports_sees_them_all():
    """Lazy and guarded imports too, or the tests below would prove nothing."""
    assert any(i.lazy for i in imports())
    assert any(i.typing_only for i in imports())
    assert {"torch", "pydantic", "gymnasium"} <= {i.top for i in imports()}
    assert len(ours()) > 100


def test_every_room_has_its_place_in_the_order_and_no_other_has():
    assert {room_of(file) for file in files()} == set(ALLOWED)


def test_the_order_has_no_circle():
    """Two rooms that may import each other would be one room."""
    graphlib.TopologicalSorter(ALLOWED).prepare()


@pytest.mark.parametrize("room", ALLOWED)
def test_no_room_imports_upwards(room):
    allowed = ALLOWED[room] | {room}
    wrong = [i for i in ours() if i.room == room and i.top not in allowed and not i.top.startswith("__")]
    wrong = [i for i in wrong if not is_found_by_name(i)]
    assert not wrong, "\n".join(map(str, wrong))


def test_nothing_below_the_public_face_imports_it():
    """`from policysmith import …` inside the package would load everything, and backwards."""
    rooms = {"cli", "compat", "__main__", "__init__"}
    wrong = [i for i in imports() if i.target == "policysmith" or i.target.startswith("policysmith.__")]
    assert not [str(i) for i in wrong if i.room not in rooms]


# Who finds the dialects by a name in a text, so that no room below needs them.
BY_NAME = {"policysmith/registry.py", "policysmith/cli/import_.py"}


# Who offers names of rooms above by a path of its own: they are found when asked for, and type checkers see whence.
OFFERS = {"policysmith/graph/__init__.py", "policysmith/graph/executors.py"}


def is_found_by_name(i: Import) -> bool:
    """The dialects are; and what a room offers of rooms above."""
    offered = i.file in OFFERS and (i.typing_only or i.by_name) and i.top in {"compile", "dialects"}
    types = i.file == "policysmith/registry.py" and i.by_name and i.target in ROOMS
    return offered or types or (i.top == "dialects" and i.by_name and i.file in BY_NAME)


def test_no_room_imports_the_dialects():
    """The registry finds them by name; only modules of public names import them."""
    wrong = [i for i in ours() if i.top == "dialects" and i.room not in FACES | {"dialects"}]
    assert [str(i) for i in wrong if not is_found_by_name(i)] == []
    assert not [str(i) for i in ours() if i.top == "importers" and i.room != "importers"]


# Who changes the class of a live layer, since whoever holds the layer must have the changed one: adapters, and batch
# normalisation while several processes train.
CHANGES_CLASSES = {"policysmith/wrappers/lora.py", "policysmith/training/distribution/batch_norms.py"}


def test_no_object_changes_its_class():
    """What an object is, is decided when it is made."""
    found = {
        str(file.relative_to(PACKAGE.parent))
        for file in files()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "__class__" and isinstance(node.ctx, ast.Store)
    }
    assert found == CHANGES_CLASSES


def test_the_rooms_below_know_no_foreign_grammar():
    """Their words stand in the dialects alone: here a graph is translated at the door."""
    words = ("schema_version", "_type_", "_target_", "component_config_paths")
    rooms = {"config", "registry", "graph", "compile", "policy", "store", "training", "api"}
    found = [
        f"{file.relative_to(PACKAGE)}: {word}"
        for file in files()
        for word in words
        if room_of(file) in rooms and f'"{word}"' in file.read_text(encoding="utf-8")
    ]
    assert found == []


def test_every_dialect_has_the_same_files():
    """What a system's configuration, weights and names become is found in the same place for each."""
    folders = [f for f in (PACKAGE / "dialects").iterdir() if f.is_dir() and f.name != "__pycache__"]
    assert len(folders) >= 5
    for folder in folders:
        assert {"__init__.py", "grammar.py", "weights.py", "names.py"} <= {f.name for f in folder.glob("*.py")}, folder


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_keeps_away_from_packages_it_must_not_need(room):
    wrong = [i for i in imports() if i.room == room and i.top in FORBIDDEN[room] and not i.typing_only]
    assert not wrong, "\n".join(map(str, wrong))


# What each folder of training may import of the others: those that stand before it.
TRAINING_FOLDERS = (
    "sections", "process", "optim", "distribution", "nonfinite", "datasets", "environments", "rollout", "logging",
    "algorithm", "ppo", "offline", "games", "experiment", "run", "types",
)  # fmt: skip


def test_the_folders_of_training_have_an_order():
    """Each is one task, and what several tasks share stands below them."""
    inside = {
        f.relative_to(PACKAGE / "training").parts[0].removesuffix(".py") for f in files() if room_of(f) == "training"
    }
    assert inside - {"__init__"} == set(TRAINING_FOLDERS)
    inner = [i for i in ours() if i.room == i.top == "training" and i.file != "policysmith/training/__init__.py"]
    places = [(i, i.file.split("/")[2].removesuffix(".py"), i.target.split(".")[2]) for i in inner]
    assert len(places) > 100
    wrong = [str(i) for i, own, other in places if TRAINING_FOLDERS.index(other) > TRAINING_FOLDERS.index(own)]
    assert wrong == []


def test_ops_need_only_torch_and_the_standard_library():
    outside = {i.top for i in imports() if i.room == "ops"} - set(sys.stdlib_module_names)
    assert outside <= {"torch", "errors", "ops"}


def test_parts_and_graph_never_import_each_other():
    assert not [str(i) for i in ours() if (i.room, i.top) in {("parts", "graph"), ("graph", "parts")}]


def needs_of_files() -> dict[str, set[str]]:
    """Which modules a file imports, at any time and for whatever reason; not the face of its own package."""
    modules = {module_name(file) for file in files()}
    needs: dict[str, set[str]] = {name: set() for name in modules}
    for i in ours():
        if i.by_name:  # a table of what can be found is how a room stays free of it
            continue
        name = module_name(PACKAGE.parent / i.file)
        found = next((t for t in (i.target, i.target.rpartition(".")[0]) if t in modules), None)
        if found is not None and found != name and not name.startswith(f"{found}."):
            needs[name].add(found)
    return needs


def test_no_file_imports_another_in_a_circle():
    """Neither when it is loaded, nor in a call, nor for type checkers: what knows each other is one thing."""
    graphlib.TopologicalSorter(needs_of_files()).prepare()


@pytest.mark.parametrize(
    "module", ["policysmith", "policysmith.errors", "policysmith.registry", "policysmith.config.load"]
)
def test_reading_a_configuration_loads_no_torch(module):
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'numpy', 'gymnasium', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("room", sorted(p.name for p in (PACKAGE / "config").glob("*.py")))
def test_no_file_of_config_loads_torch(room):
    """Neither directly nor through what it imports; all in one process would hide the culprit."""
    reached, todo = set(), {f"policysmith.config.{Path(room).stem}"}
    by_module: dict[str, list[Import]] = {}
    for i in imports():
        by_module.setdefault(module_name(PACKAGE.parent / i.file), []).append(i)
    while todo:
        name = todo.pop()
        reached.add(name)
        for i in by_module.get(name, []):
            assert i.top != "torch" or i.typing_only, str(i)
            if not i.typing_only and i.target.startswith("policysmith."):
                todo |= {t for t in (i.target, i.target.rpartition(".")[0]) if t in by_module} - reached


@pytest.mark.parametrize("file", files(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_file_is_small_and_says_what_it_is(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring and len(docstring) >= 20, "a module opens with what it is"


def test_files_are_mostly_short():
    lengths = sorted(len(file.read_text(encoding="utf-8").splitlines()) for file in files())
    assert lengths[len(lengths) // 2] <= 150


def bound(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that statements at the top of a file bind, also under a condition."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.If | ast.Try):
            handlers = [handler.body for handler in getattr(node, "handlers", [])]
            yield from (name for part in (node.body, node.orelse, *handlers) for name in bound(part))
        else:
            yield from (n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def promised(tree: ast.Module) -> list[str]:
    """`__all__`; unpacked parts of it are names that are found elsewhere."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [e.value for e in getattr(node.value, "elts", []) if isinstance(e, ast.Constant)]
    return []


def offered_on_demand(tree: ast.Module) -> set[str]:
    """The names that a module's own `__getattr__` gives: keys of the mappings at its top."""
    if "__getattr__" not in set(bound(tree.body)):
        return set()
    tables = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    keys = [key for table in tables if isinstance(table, ast.Dict) for key in table.keys]
    return {key.value for key in keys if isinstance(key, ast.Constant)}


@pytest.mark.parametrize("file", files(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_what_a_file_promises_it_has(file):
    """Every name of `__all__` is bound at the top of the file, or given by its `__getattr__`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = promised(tree)
    assert len(names) == len(set(names))
    assert sorted(set(names) - set(bound(tree.body)) - offered_on_demand(tree)) == []


def test_what_a_file_takes_of_another_is_promised_there():
    """So `__all__` says what others rely on; a name with an underscore is nobody else's."""
    modules = {module_name(file): ast.parse(file.read_text(encoding="utf-8")) for file in files()}
    promises = {name: {*promised(tree), *offered_on_demand(tree)} for name, tree in modules.items()}
    wrong = [
        f"{name} takes {alias.name} of {node.module}"
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in modules.keys() - {"policysmith"}
        for alias in node.names
        if alias.name not in promises[node.module] and f"{node.module}.{alias.name}" not in modules
    ]
    assert wrong == []


def test_a_promise_is_not_kept_by_a_longer_name():
    tree = ast.parse('__all__ = ["MLP", "Both", "Later"]\nclass ResidualMLP: ...\nif True:\n    import Both\n')
    assert set(promised(tree)) - set(bound(tree.body)) == {"MLP", "Later"}


def asked_of_the_package(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module of ours, name) of each `from policysmith... import name`, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            yield from ((node.module, alias.name) for alias in node.names)


def has(module: str, name: str) -> bool:
    """Whether a module of the package binds the name, gives it on demand, or is the folder it stands in."""
    place = PACKAGE.parent.joinpath(*module.split("."))
    if (place / name).is_dir() or (place / f"{name}.py").is_file():
        return True
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return False
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return name in set(bound(tree.body)) | offered_on_demand(tree)


def beside_the_package() -> list[Path]:
    """What no other test imports: benchmarks, examples and scripts; not the environments that stand in them."""
    found = [file for room in ("benchmarks", "examples", "scripts") for file in (PACKAGE.parent / room).rglob("*.py")]
    return [file for file in found if ".venv-sb3" not in file.parts]


@pytest.mark.parametrize("file", beside_the_package(), ids=lambda f: str(f.relative_to(PACKAGE.parent)))
def test_what_is_written_beside_the_package_finds_its_names(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert [(module, name) for module, name in asked_of_the_package(tree) if not has(module, name)] == []
