"""Names of training that users import: from the room itself, and by the paths that were documented before."""

import importlib
import subprocess
import sys

import pytest

import policysmith.training
from policysmith.training.environments import make as environments
from policysmith.training.logging import plots
from policysmith.training.offline import objectives
from policysmith.training.ppo import ppo, value_objectives
from policysmith.training.rollout import evaluation


@pytest.mark.parametrize("name", policysmith.training.__all__)
def test_every_name_of_the_room_is_found(name):
    assert getattr(policysmith.training, name).__name__ == name


@pytest.mark.parametrize(
    ("path", "home", "names"),
    [
        ("online", ppo, ["PPO", "Report"]),
        ("value_objectives", value_objectives, ["ValueObjective", "ScalarValue"]),
        ("offline_objectives", objectives, ["Learner", "Objective", "Loss", "Start"]),
        ("environments", environments, ["make_vector", "make_environment", "single_spaces"]),
        ("evaluation", evaluation, ["evaluate_policy", "EvaluationResult"]),
        ("curve", plots, ["plot_learning_curve", "plot_learning_curves"]),
    ],
)
def test_a_path_that_was_documented_leads_to_the_new_place(path, home, names):
    module = importlib.import_module(f"policysmith.training.{path}")
    assert all(getattr(module, name) is getattr(home, name) for name in names)
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing


def test_the_room_itself_loads_no_torch():
    code = "import sys, policysmith.training, policysmith.training.online; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
