"""Graphs of the original YAML policy constructor: its configuration of schema version 1, and the weights beside it.

In: a configuration, and what `torch.save` wrote of the built model. Out: the same network as a `GraphModel`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import yaml
from torch import Tensor
from torch.nn.parameter import is_lazy

import policysmith.parts  # noqa: F401 - its types fill the default registry
from policysmith.compile.model import GraphModel, build_model
from policysmith.config.located_data import Findings, Place
from policysmith.config.python_data import to_plain
from policysmith.config.spelling import Spelled, spelled_mapping
from policysmith.config.yaml_text import read_yaml
from policysmith.dialects import GRAPHS
from policysmith.dialects.policy_constructor.composition import finish_v1, is_v1
from policysmith.dialects.policy_constructor.graph_translation import describe, says_v1, translate
from policysmith.dialects.policy_constructor.native_graph import NativeGraph, to_native
from policysmith.dialects.policy_constructor.weights import load_weights
from policysmith.errors import ConfigError
from policysmith.registry import Registry, register
from policysmith.store.files import replace_directory
from policysmith.store.weights_file import read_weights

__all__ = ["ImportedGraph", "PolicyConstructorGrammar", "import_graph", "read", "write_graph"]


@dataclass(frozen=True, eq=False)
class ImportedGraph:
    """What was made of a configuration: a model in eval mode, and sentences on what was changed or left behind.

    `config` builds it again: in our own grammar where that can say it, else in schema version 1, composed; `obstacles`
    says what can't be said in our own. `tensors` are the weights under the names that `config` gives them.
    """

    model: GraphModel
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()

    def save(self, directory: str | Path) -> None:
        """Store it: see `write_graph`."""
        write_graph(self, directory)


def import_graph(
    config: str | Path | Mapping[str, Any],
    weights: str | Path | None = None,
    *,
    registry: Registry | None = None,
    inputs: Mapping[str, Sequence[int]] | None = None,
    allow_targets: Sequence[str] = (),
) -> GraphModel:
    """The graph of a configuration of schema version 1 with its weights, in eval mode on the CPU.

    Args:
        config: the YAML file, or its content.
        weights: `<name>.pt` as `torch.save(model.state_dict())` wrote it, or `.safetensors`; only tensors are read.
        registry: where types beyond those of version 1 are looked up.
        inputs: event shapes by name, without the batch axis.
        allow_targets: prefixes below which `_target_` and `imports` may name code.

    Raises:
        ConfigError: the configuration is wrong; every problem is named.
        CheckpointError: the weights are not this graph's: tensors are missing, misshapen or unexpected; all are named.
    """
    return read(config, weights, registry=registry, inputs=inputs, allow_targets=allow_targets).model


INPUTS = Spelled(
    "NAME=SHAPE",
    spelled_mapping(
        r"[A-Za-z_]\w*",
        r"[1-9]\d{0,5}(?:[x×][1-9]\d{0,5})*",
        lambda name, shape: (name, [int(size) for size in re.split("[x×X]", shape)]),
        "is no input: write its name and one row's shape, as in image=3x84x84",
    ),
    repeated=True,
    flag="--input",
)


def read(
    path: str | Path | Mapping[str, Any],
    weights: str | Path | None = None,
    *,
    registry: Registry | None = None,
    inputs: Annotated[Mapping[str, Sequence[int]], INPUTS] | None = None,
    allow_targets: Sequence[str] = (),
) -> ImportedGraph:
    """As `import_graph`, with what the model can be built from again, and notes.

    Args:
        path: the YAML file, or its content.
        weights: `<name>.pt` as `torch.save(model.state_dict())` wrote it, or `.safetensors`; none, and they are new.
        registry: where types beyond those of version 1 are looked up.
        inputs: the shape of one row of an input, as in image=3x84x84; one for each.
        allow_targets: prefixes below which `_target_` and `imports` may name code.
    """
    model = build_model(path, registry, inputs=inputs, seed=0, allow_targets=allow_targets)
    if not model.plan.late:
        raise ConfigError("this is no configuration of schema version 1: it is in our own grammar, and needs no import")
    notes = (
        load_weights(model, read_weights(weights)) if weights is not None else ["no weights were given: they are new"]
    )
    model.eval()
    native = to_native(path, model, inputs, registry)
    notes += native.notes
    return ImportedGraph(model, native.config, _named(native, model), tuple(notes), native.obstacles)


@register("policy-constructor", slot="grammar", graphs=GRAPHS["policy-constructor"])
class PolicyConstructorGrammar:
    """Graphs of the original YAML policy constructor (schema version 1), and the weights beside them."""

    weights_apart = True
    read = staticmethod(read)
    speaks = staticmethod(is_v1)
    recognizes = staticmethod(says_v1)
    compose = staticmethod(finish_v1)
    describe = staticmethod(describe)
    translate = staticmethod(translate)


def _named(native: NativeGraph, model: GraphModel) -> dict[str, Tensor]:
    """The weights under the names of what is written."""
    state = (native.model or model).state_dict()
    return {name: tensor for name, tensor in state.items() if not is_lazy(tensor)}


def write_graph(imported: ImportedGraph, directory: str | Path) -> Path:
    """Store `graph.yaml` and `model.safetensors`; the directory appears whole, or not at all.

    `build_model(directory / "graph.yaml")` builds the model, whose `load_state_dict` takes the other file's tensors.
    """
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in imported.tensors.items()}
    files = {"graph.yaml": _yaml(imported.config).encode(), "model.safetensors": safetensors.torch.save(tensors)}
    directory = Path(directory)
    replace_directory(directory, files, tuple(files))
    return directory


def _yaml(config: Mapping[str, Any]) -> str:
    """A text that reads as just this configuration."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)
    findings = Findings()
    root = read_yaml(text, lambda line, column: Place("", line, column), findings)
    if root is None or to_plain(root, {}, {}) != config:  # what PyYAML leaves unquoted, YAML 1.2 may read as a number
        return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return text
