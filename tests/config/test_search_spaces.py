"""Search spaces: what is one, what is none, and what becomes of them."""

from __future__ import annotations

import pytest

from policysmith import api
from policysmith.config.experiment import section_failures
from policysmith.config.load import load
from policysmith.config.search_spaces import Range, fill, find_spaces
from policysmith.errors import ConfigError
from policysmith.registry import Registry, default_registry

CARTPOLE = {"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp"}, "training": {"type": "ppo"}}


def spaces(config, overrides=(), registry=default_registry):
    return find_spaces(load(config, overrides), lambda data: section_failures(data, registry))


def test_choices_and_ranges_stand_in_the_place_of_a_value():
    found = spaces(
        CARTPOLE,
        [
            "environment.options.sutton_barto_reward={tune: [true, false]}",
            "model.hidden={tune: [[64, 64], [128]]}",
            "model.activation={tune: [relu, {type: gelu}]}",
            "training.learning_rate={tune: {low: 1e-5, high: 1e-2, log: true}}",
            "training.epochs={tune: {low: 1, high: 4, step: 1}}",
        ],
    )
    by_name = {space.name: (space.choices, space.range) for space in found}
    assert by_name == {
        "model.hidden": (([64, 64], [128]), None),
        "model.activation": (("relu", {"type": "gelu"}), None),
        "training.learning_rate": ((), Range(1e-5, 1e-2, log=True)),
        "training.epochs": ((), Range(1, 4, step=1)),
        "environment.options.sutton_barto_reward": ((True, False), None),
    }
    assert Range(1, 4, step=1).whole and not Range(1, 4, step=0.5).whole


@pytest.mark.parametrize(
    "text",
    [
        "training.optimizers={tune: {type: adam}}",
        "environment.options={tune: [1, 2]}",
        "environment.options={tune: {low: 1, high: 2}}",
        "environment.options.mode={tune: fast}",
        "model={type: graph, components: {tune: {type: mlp, in_keys: observation, hidden: [8]}}}",
        "model={type: networks, component_build_args: {tune: {freeze: true}}}",
    ],
)
def test_a_mapping_with_the_key_tune_that_its_place_declares_is_no_space(text):
    assert spaces(CARTPOLE, [text]) == []


def test_an_option_of_ones_own_that_is_a_mapping_of_lists_is_no_space():
    registry = default_registry.copy()

    def odd(weights: dict[str, list[int]], gain: float = 1.0) -> None:
        """Something."""

    registry.register("odd", slot="activation")(odd)
    text = ["model.activation={type: odd, weights: {tune: [1, 2]}, gain: {tune: [1.0, 2.0]}}"]
    assert [space.name for space in spaces(CARTPOLE, text, registry)] == ["model.activation.gain"]
    assert isinstance(registry, Registry)


def test_a_space_that_is_written_once_is_one_wherever_it_is_taken(tmp_path):
    file = tmp_path / "shared.yaml"
    file.write_text(
        "format: 1\nspaces: {observation: {type: box, shape: [4]}, action: {type: discrete, n: 2}}\n"
        "templates: {block: {type: mlp, hidden: {tune: [[4], [8]]}}}\n"
        "model:\n  type: graph\n  components:\n"
        "    actor:  {template: block, in_keys: observation}\n"
        "    critic: {template: block, in_keys: observation, activation: {tune: [relu, tanh]}}\n"
        "    other:  {type: mlp, in_keys: observation, activation: '${model.components.critic.activation}'}\n"
        "    policy: {type: action_head, in_keys: [actor, other]}\n"
        "    state_value: {type: value_head, in_keys: critic}\n"
    )
    found = spaces(file)
    assert [[".".join(path[2:]) for path in space.paths] for space in found] == [
        ["actor.hidden", "critic.hidden"],
        ["critic.activation", "other.activation"],
    ]
    filled = fill(load(file), [(found[0], 1, [8]), (found[1], 0, "relu")])
    components = filled.data["model"]["components"]
    assert components["actor"]["hidden"] == components["critic"]["hidden"] == [8]
    assert components["other"]["activation"] == "relu"
    assert str(filled.place(("model", "components", "actor", "hidden", 0))).endswith("shared.yaml:3:54")


@pytest.mark.parametrize(
    ("space", "path", "message"),
    [
        ("3", "", "a search space is a list of choices, or {low: …, high: …} with log: true or a step; found 3"),
        ("[]", "", "a search space needs at least one choice, found none"),
        ("[1, 2, 1]", ".2", "the choice 1 stands twice"),
        ("{low: 1}", "", "'high' is missing"),
        ("{}", "", "'low' is missing"),
        ("{low: 1, hihg: 3}", ".hihg", "a range has no 'hihg' (did you mean 'high'?)"),
        ("{low: 3, high: 1}", ".high", "must be more than low=3, found 1"),
        ("{low: one, high: 2}", ".low", "expected a finite number, found 'one'"),
        ("{low: true, high: 2}", ".low", "expected a finite number, found True"),
        ("{low: 0, high: 1, log: true}", ".low", "must be more than 0 on a logarithmic scale, found 0"),
        ("{low: 1, high: 9, log: true, step: 2}", ".step", "a logarithmic scale takes no step"),
        ("{low: 1, high: 4, step: 2}", ".step", "does not lead from 1 to 4 in whole steps, found 2"),
        ("{low: 1, high: 4, step: 0}", ".step", "must be more than 0, found 0"),
        ("{low: 1, high: 4, log: yes}", ".log", "expected true or false, found 'yes'"),
    ],
)
def test_a_malformed_space_is_told_with_its_place(space, path, message):
    with pytest.raises(ConfigError) as refused:
        spaces(CARTPOLE, [f"training.epochs={{tune: {space}}}"])
    (problem,) = refused.value.problems
    assert problem.path == f"training.epochs.tune{path}" and message in problem.message
    assert problem.place and problem.place.startswith("override ")


def test_check_and_train_say_in_a_sentence_where_spaces_belong():
    overrides = ["model.hidden={tune: [[8], [16]]}", "training.epochs={tune: [1, 2]}"]
    (problem,) = api.check(CARTPOLE, overrides)
    assert (problem.path, problem.message) == (
        "model.hidden",
        "a search space stands here, and at training.epochs: look for the best values with `policysmith tune`, "
        "or write one value",
    )
    with pytest.raises(ConfigError, match="policysmith tune"):
        api.train(CARTPOLE, overrides)
