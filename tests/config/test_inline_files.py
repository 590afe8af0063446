"""Files that a model names become part of the document, with the places of what is in them."""

from __future__ import annotations

import pytest

import policysmith.policy  # noqa: F401 - registers the models
from policysmith.config.inline_files import inline_files
from policysmith.config.load import load
from policysmith.errors import ConfigError
from policysmith.registry import default_registry

GRAPH = "components:\n  out: {type: nn.ReLU, in_keys: x}\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "a.yaml").write_text(GRAPH)
    return tmp_path


def inlined(document):
    return inline_files(document, default_registry)


def write(folder, text: str):
    (folder / "top.yaml").write_text(text)
    return load(folder / "top.yaml")


def test_a_graph_takes_the_place_of_its_path_and_keeps_its_own_places(folder):
    document = inlined(write(folder, "model: {type: networks, component_config_paths: {a: nets/a.yaml}}\n"))
    path = ("model", "component_config_paths", "a")
    assert document.data["model"]["component_config_paths"]["a"]["components"] == {
        "out": {"type": "nn.ReLU", "in_keys": "x"}
    }
    assert str(document.place((*path, "components", "out", "type"))) == f"{folder / 'nets' / 'a.yaml'}:2:15"
    assert str(document.place(path)).startswith(f"{folder / 'top.yaml'}:1:")


def test_a_single_path_becomes_the_graph(folder):
    document = inlined(write(folder, "model: {type: networks, config_path: nets/a.yaml}\n"))
    assert list(document.data["model"]) == ["type", "config"] and "components" in document.data["model"]["config"]


def test_graphs_of_components_are_read_too_and_weights_get_absolute_paths(folder):
    text = "model: {type: graph, components: {a: {type: graph_model, config: nets/a.yaml, load: w/a.pt}}}\n"
    component = inlined(write(folder, text)).data["model"]["components"]["a"]
    assert "components" in component["config"] and component["load"] == str(folder / "w" / "a.pt")


def test_the_given_document_stays_as_it_was(folder):
    document = write(folder, "model: {type: networks, component_config_paths: {a: nets/a.yaml}}\n")
    inlined(document)
    assert document.data["model"]["component_config_paths"] == {"a": "nets/a.yaml"}


def test_a_model_of_a_factory_keeps_its_paths_and_gets_the_directory(folder):
    model = inlined(write(folder, "model: {type: factory, factory: f, config: {a: nets/a.yaml}}\n")).data["model"]
    assert model["config"] == {"a": "nets/a.yaml"} and model["base_dir"] == str(folder)


def test_every_missing_or_wrong_file_is_told_at_once(folder):
    (folder / "nets" / "b.yaml").write_text("components: [\n")
    text = "model: {type: networks, component_config_paths: {a: nets/none.yaml, b: nets/b.yaml, c: nets/a.yaml}}\n"
    with pytest.raises(ConfigError) as caught:
        inlined(write(folder, text))
    first, second = caught.value.problems
    assert f"there is no file {folder / 'nets' / 'none.yaml'}; relative paths start at {folder}" in first.message
    assert second.place.startswith(str(folder / "nets" / "b.yaml"))


@pytest.mark.parametrize(
    "text", ["model: mlp\n", "model: {type: mlp}\n", "seed: 1\n", "model: {type: networks, config: 3}\n"]
)
def test_what_names_no_file_stays(folder, text):
    document = write(folder, text)
    assert inlined(document).data == document.data
