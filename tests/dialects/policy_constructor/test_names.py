"""A factory gives named networks for each of its modes, and one clear error for what names none."""

from __future__ import annotations

import pytest
import torch
import yaml

from policysmith.dialects.policy_constructor.names import MAIN, ModelFactory, PolicyConstructorModelFactory
from policysmith.errors import ConfigError
from policysmith.graph import GraphModel


def graph(width: int = 3) -> dict:
    layers = [{"_type_": "nn.Linear", "_kwargs_": {"in_features": 4, "out_features": width}}, {"_type_": "nn.ReLU"}]
    return {"schema_version": 1, "model": {"sequential": {"layers": layers}}}


def native(width: int = 3) -> dict:
    return {"inputs": {"x": [4]}, "components": {"body": {"type": "nn.Linear", "out_features": width, "in_keys": "x"}}}


@pytest.fixture
def folder(tmp_path):
    for name, config in {"a": graph(3), "b": graph(5)}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def widths(models: dict) -> dict:
    return {name: model(torch.zeros(2, 4)).shape[1] for name, model in models.items()}


def test_it_is_a_model_factory():
    assert isinstance(PolicyConstructorModelFactory(), ModelFactory)


def test_a_path_gives_one_network(folder):
    models = PolicyConstructorModelFactory().build({"config_path": "a.yaml"}, base_dir=folder)
    assert widths(models) == {MAIN: 3} and isinstance(models[MAIN], GraphModel)


def test_an_inline_graph_gives_one_network():
    assert widths(PolicyConstructorModelFactory().build({"config": graph(7)})) == {MAIN: 7}


def test_names_give_a_network_each_from_files_and_graphs(folder):
    named = {"head": "a.yaml", "body": str(folder / "b.yaml"), "tail": graph(2)}
    factory = PolicyConstructorModelFactory()
    expected = {"head": 3, "body": 5, "tail": 2}
    assert widths(factory.build({"component_config_paths": named}, base_dir=folder)) == expected
    assert widths(factory.build(named, base_dir=folder)) == expected


@pytest.mark.parametrize("name", ["config", "config_path", "base_dir"])
def test_a_component_may_have_any_name(folder, name):
    models = PolicyConstructorModelFactory().build({"component_config_paths": {name: "a.yaml"}}, base_dir=folder)
    assert widths(models) == {name: 3}


def test_paths_start_at_the_argument_then_at_the_configuration_then_here(folder, monkeypatch, tmp_path_factory):
    elsewhere, factory = tmp_path_factory.mktemp("elsewhere"), PolicyConstructorModelFactory()
    (elsewhere / "a.yaml").write_text(yaml.safe_dump(graph(9)))
    section = {"config_path": "a.yaml", "base_dir": str(folder)}
    assert widths(factory.build(section)) == {MAIN: 3}
    assert widths(factory.build(section, base_dir=elsewhere)) == {MAIN: 9}
    monkeypatch.chdir(elsewhere)
    assert widths(factory.build({"config_path": "a.yaml"})) == {MAIN: 9}


def test_a_missing_file_is_told_by_its_absolute_path(folder):
    with pytest.raises(ConfigError) as caught:
        PolicyConstructorModelFactory().build({"head": "none.yaml", "body": "nor.yaml"}, base_dir=folder)
    assert str(caught.value).splitlines() == [
        f"{name}: there is no file {folder / file}; relative paths start at {folder}"
        for name, file in (("head", "none.yaml"), ("body", "nor.yaml"))
    ]


def test_a_seed_gives_each_network_its_own_stream_whatever_stands_beside_it(folder):
    def weights(names):
        models = PolicyConstructorModelFactory(seed=3).build(dict.fromkeys(names, "a.yaml"), base_dir=folder)
        return {name: torch.cat([p.flatten() for p in model.parameters()]) for name, model in models.items()}

    alone, together = weights(["head"]), weights(["body", "head"])
    assert torch.equal(alone["head"], together["head"])
    assert not torch.equal(together["head"], together["body"])


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "names no network"),
        ({"base_dir": "."}, "names no network"),
        ([], r"expected a mapping, found \[\]"),
        ({"config_path": "a.yaml", "config": {}}, "config: stands beside 'config_path'"),
        ({"component_config_paths": {"a": "a.yaml"}, "b": "b.yaml"}, "b: stands beside 'component_config_paths'"),
        ({"component_config_paths": []}, "expected a mapping from names to files"),
        ({"config": "a.yaml"}, "config: is the graph itself.*'config_path'.*'component_config_paths'"),
        ({"config_path": {"model": {}}}, "config_path: expected the path of a file"),
        ({"head": 3}, "head: expected the path of a graph file, or a graph, found 3"),
    ],
)
def test_what_names_no_network_is_refused(section, words):
    with pytest.raises(ConfigError, match=words):
        PolicyConstructorModelFactory().build(section)


def test_problems_of_all_networks_are_told_at_once(folder):
    (folder / "bad.yaml").write_text("schema_version: 1\nmodel: {sequential: {layers: [{_type_: nn.Linaer}]}}\n")
    with pytest.raises(ConfigError) as caught:
        PolicyConstructorModelFactory().build({"head": "bad.yaml", "body": {"schema_version": 2}}, base_dir=folder)
    text = str(caught.value)
    assert "bad.yaml:2" in text and "head.model" in text and "nn.Linear" in text and "body" in text


def test_both_grammars_can_be_mixed():
    assert widths(PolicyConstructorModelFactory().build({"old": graph(3), "new": native(6)})) == {"old": 3, "new": 6}
