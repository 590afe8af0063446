"""What every algorithm asks of a model and of its own options."""

import pytest

import policysmith
from policysmith.errors import ConfigError

FROZEN = {
    "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [4], "wrappers": ["frozen"]},
    "policy": {"type": "action_head", "in_keys": "trunk", "wrappers": ["frozen"]},
    "state_value": {"type": "value_head", "in_keys": "trunk", "wrappers": ["frozen"]},
}


@pytest.mark.parametrize("training", ["ppo", "offline"])
def test_a_model_of_which_nothing_learns_is_refused_before_it_is_built(training):
    config = {
        "environment": {"id": "CartPole-v1", "num_envs": 2},
        "model": {"type": "graph", "components": FROZEN},
        "training": {"type": training},
    }
    (problem,) = policysmith.check(config)
    assert problem.path == "model" and problem.message.startswith("nothing of it learns")
    if training == "ppo":
        with pytest.raises(ConfigError, match="nothing of it learns"):
            policysmith.train(config, progress=False)


@pytest.mark.parametrize("training", ["ppo", "offline"])
def test_options_that_every_algorithm_has_are_told_of_with_the_others(training):
    """Their lines stand once, in `Algorithm`; what an algorithm says otherwise goes before."""
    (info,) = policysmith.list_types(training, "algorithm")
    assert {
        "ema",
        "loggers",
        "callbacks",
        "optimizers",
        "strategy",
        "nonfinite",
        "learning_rate",
    } <= info.options.keys()
