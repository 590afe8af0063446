"""What a trainer asks for networks: a `ModelFactory` turns the model's section into named modules.

In: a mapping, with paths of graph files or graphs themselves. Out: modules by name, ready for optimisers and DDP.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from policysmith.compile.model import GraphModel, build_model
from policysmith.config.located_data import quote
from policysmith.errors import ConfigError, PolicysmithError, Problem, did_you_mean
from policysmith.graph.assemble import component_seed
from policysmith.registry import Registry, register

__all__ = ["MAIN", "ModelFactory", "PolicyConstructorModelFactory", "component_sources"]

MAIN = "main"
NAMED, PATH, INLINE = "component_config_paths", "config_path", "config"
SETTINGS = ("base_dir", "component_build_args", "factory", "find_unused_parameters", "type", "wiring")

Source = str | Mapping[str, Any]


@runtime_checkable
class ModelFactory(Protocol):
    """Builds the networks of an experiment."""

    def build(
        self, model_config: Mapping[str, Any], *, base_dir: str | os.PathLike[str] | None = None
    ) -> dict[str, nn.Module]:
        """Modules by name; a single network is `{'main': network}`. Relative paths start at `base_dir`."""


@register("policy_constructor", slot="model_factory", exclude=("registry", "seed", "allow_targets"))
class PolicyConstructorModelFactory:
    """Networks from graph configurations, each a `GraphModel` (see `build_model` for the two grammars).

    `config_path: file` and `config: {…}` (inline) give `{'main': network}`; `component_config_paths: {name: file}`
    gives one network a name, and so does a mapping name → file without that key. A graph can stand in place of a file.
    Among `component_config_paths` a component may have any name, `config` included.

    Args:
        registry: the types that graphs may name.
        seed: each network draws from a stream of its own that follows from the seed; None takes torch's generator.
        allow_targets: prefixes of what `_target_` may name in grammar 1.
    """

    def __init__(
        self, registry: Registry | None = None, *, seed: int | None = None, allow_targets: Sequence[str] = ()
    ) -> None:
        self.registry, self.seed, self.allow_targets = registry, seed, tuple(allow_targets)

    def build(
        self, model_config: Mapping[str, Any], *, base_dir: str | os.PathLike[str] | None = None
    ) -> dict[str, nn.Module]:
        """Every network, or a `ConfigError` with every problem of all of them.

        Relative paths start at `base_dir`, or else at the configuration's own `base_dir`, or else where we are.
        """
        sources = component_sources(model_config)
        base = Path(base_dir if base_dir is not None else model_config.get("base_dir") or Path())
        models: dict[str, nn.Module] = {}
        problems: list[Problem] = []
        for name, source in sources.items():
            try:
                models[name] = self._build(name, source, base)
            except ConfigError as error:
                problems += [_of_component(name, problem) for problem in error.problems]
            except PolicysmithError as error:
                problems.append(Problem(name, str(error)))
        if problems:
            raise ConfigError(problems)
        return models

    def _build(self, name: str, source: Source, base: Path) -> GraphModel:
        seed = None if self.seed is None else component_seed(self.seed, name)
        if isinstance(source, str):
            source = str(_file(name, source, base))
        return build_model(source, self.registry, seed=seed, base_dir=base, allow_targets=self.allow_targets)


def component_sources(model_config: Mapping[str, Any]) -> dict[str, Source]:
    """The networks that a model's section names: name → file as written, or the graph itself.

    Raises `ConfigError` for a section that names none, or names them in two ways at once.
    """
    if not isinstance(model_config, Mapping):
        raise ConfigError(f"model: expected a mapping, found {quote(model_config)}")
    if NAMED in model_config:
        _refuse_others(model_config, NAMED)
        sources = model_config[NAMED]
        if not isinstance(sources, Mapping) or not sources:
            raise ConfigError([Problem(NAMED, f"expected a mapping from names to files, found {quote(sources)}")])
    elif PATH in model_config or INLINE in model_config:
        key = PATH if PATH in model_config else INLINE
        _refuse_others(model_config, key)
        sources = {MAIN: model_config[key]}
        _check_single(key, model_config[key])
    else:
        sources = {name: source for name, source in model_config.items() if name not in SETTINGS}
    if not sources:
        raise ConfigError(f"model: names no network: give {NAMED}: {{name: file}}, {PATH}: file, or {INLINE}: {{…}}")
    problems = [
        Problem(str(name), f"expected the path of a graph file, or a graph, found {quote(source)}")
        for name, source in sources.items()
        if not isinstance(name, str) or not isinstance(source, str | Mapping) or not source
    ]
    if problems:
        raise ConfigError(problems)
    return dict(sources)


def _refuse_others(model_config: Mapping[str, Any], mode: str) -> None:
    others = [str(key) for key in model_config if key != mode and key not in SETTINGS]
    if others:
        hint = did_you_mean(others[0], (mode, *SETTINGS))
        raise ConfigError(
            [
                Problem(
                    key,
                    f"stands beside {mode!r}, which says all there is{hint}: name every network in {NAMED!r}",
                )
                for key in others
            ]
        )


def _check_single(key: str, source: Any) -> None:
    if key == PATH and not isinstance(source, str):
        raise ConfigError([Problem(key, f"expected the path of a file, found {quote(source)}")])
    if key == INLINE and not isinstance(source, Mapping):
        message = f"is the graph itself, found {quote(source)}: a file goes into {PATH!r}, a network of this name into "
        raise ConfigError([Problem(key, f"{message}{NAMED!r}")])


def _file(name: str, path: str, base: Path) -> Path:
    file = (base / path).absolute()
    if not file.is_file():
        raise ConfigError([Problem("", f"there is no file {file}; relative paths start at {base.absolute()}")])
    return file


def _of_component(name: str, problem: Problem) -> Problem:
    return Problem(f"{name}.{problem.path}" if problem.path else name, problem.message, problem.place)
