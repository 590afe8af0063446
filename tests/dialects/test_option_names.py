"""Names that other libraries have for our options are answered with ours."""

from __future__ import annotations

import re

import pytest

import policysmith
from policysmith.dialects.option_names import OPTIONS, TYPES
from policysmith.errors import RegistryError
from policysmith.registry import default_registry

OPTION_OF_A_PATH = re.compile(r"(training|model|environment|observation|evaluation)\.(\w+)")


def problems(**sections):
    said = policysmith.check({"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp"}, **sections})
    return {problem.path: problem.message for problem in said}


def test_a_public_recipe_is_told_in_our_words():
    """The entry of CartPole in the tuned hyperparameters of rl-baselines3-zoo: what they train it with."""
    theirs = {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20, "ent_coef": 0.0}
    found = problems(n_envs=8, n_timesteps=1e5, training={"type": "ppo", **theirs, "clip_range": 0.2})
    ours = {"n_steps": "'rollout_steps' here", "batch_size": "'minibatches' here", "n_epochs": "'epochs' here"}
    ours |= {"ent_coef": "'entropy_coef' here", "clip_range": "'clip' here"}
    for name, said in ours.items():
        assert re.search(rf"; {name} of Stable-Baselines3( and CleanRL)? is {said}", found.pop(f"training.{name}"))
    assert found == {
        "n_envs": "unknown section; n_envs of Stable-Baselines3 is environment.num_envs",
        "n_timesteps": "unknown section; n_timesteps of Stable-Baselines3 is training.total_steps",
    }


def test_a_size_of_minibatches_is_answered_with_the_arithmetic():
    found = problems(training={"type": "ppo", "minibatch_size": 64})
    assert "num_envs × rollout_steps divided by this size" in found["training.minibatch_size"]
    assert "rl_games and RLlib" in found["training.minibatch_size"]


def test_one_name_for_two_things_is_told_for_both():
    found = problems(training={"type": "ppo", "clip_value": 0.2})["training.clip_value"]
    assert "clip_value of rl_games is 'value_clip' here (" in found
    assert "clip_value of TorchRL is 'value_clip' here" in found


def test_an_option_of_another_section_is_named_with_it():
    found = problems(model={"type": "mlp", "n_steps": 32, "net_arch": [8]})
    assert "n_steps of Stable-Baselines3 is training.rollout_steps" in found["model.n_steps"]
    assert "net_arch of Stable-Baselines3 is 'hidden' here" in found["model.net_arch"]


def test_a_spelling_of_our_own_is_guessed_as_before():
    assert "(did you mean 'minibatches'?)" in problems(training={"type": "ppo", "minibatchs": 3})["training.minibatchs"]


@pytest.mark.parametrize(("section", "type_", "said"), [
    ("model", "MlpPolicy", "unknown model 'MlpPolicy'; write mlp"),
    ("training", "sac", "unknown algorithm 'sac'; ppo is what trains online; an algorithm of your own"),
])  # fmt: skip
def test_a_type_of_theirs_is_answered_with_ours(section, type_, said):
    assert problems(**{section: {"type": type_}})[f"{section}.type"].startswith(said)


def test_names_that_stand_for_another_type_are_not_proposed():
    said = problems(model={"type": "nothing"})["model.type"]
    assert said.endswith("known: factory, graph, mlp, moe, networks, resnet, se_resnet, transformer")
    assert not {"dummy", "testmodel", "resumemodel"} & {t.name for t in policysmith.list_types(slot="model")}
    assert policysmith.build({"model": {"type": "dummy"}}, *board()).get_value is not None


def board():
    from gymnasium.spaces import Box, Discrete

    return Box(0.0, 1.0, (3, 4, 4)), Discrete(5)


@pytest.mark.parametrize("library", OPTIONS)
def test_what_is_named_as_ours_there_is(library):
    """Every path is one of an option: a renamed option would send people astray."""
    policysmith.list_types()
    options = {
        "training": set(default_registry.entry("algorithm", "ppo").schema.parameters),
        "model": set(default_registry.entry("model", "mlp").schema.parameters) | {"type"},
    }
    for section in ("environment", "observation", "evaluation"):
        found = problems(**{section: {"id": "CartPole-v1", "nothing_of_the_kind": 1}})
        options[section] = set(re.findall(r"\w+", found[f"{section}.nothing_of_the_kind"].partition("it has:")[2]))
    asked = [match for ours in OPTIONS[library].values() for match in OPTION_OF_A_PATH.findall(ours)]
    assert len(asked) > 5
    assert [(section, option) for section, option in asked if option not in options[section]] == []


def test_the_types_named_in_place_of_theirs_there_are():
    for (slot, theirs), advice in TYPES.items():
        assert theirs not in default_registry.names(slot)
        for name in re.findall(r"(?:^write|type|and|types) (mlp|graph|nature|lstm)\b", advice):
            slot_of_it = "model" if name in ("mlp", "graph") else "component"
            assert default_registry.entry(slot_of_it, name)
    with pytest.raises(RegistryError, match="write mlp"):
        default_registry.entry("model", "MlpPolicy")


def test_a_grammar_brings_names_of_its_own():
    registry = default_registry.copy()

    @registry.register("mine", slot="grammar", options={"breadth": "model.hidden"})
    class Mine:
        """A system whose files we read."""

    said = policysmith.check(
        {"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp", "breadth": [8]}}, registry=registry
    )
    assert [p.message for p in said] == ["unknown option of 'mlp'; breadth of mine is 'hidden' here"]
