"""What is saved here gives the same outputs in another process, exactly."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from policysmith.store import save


def outputs(policy, observation):
    with torch.no_grad():
        tensors = policy.prepare(observation)
        params, value = policy(tensors)
        action, log_prob, _ = policy.get_action_and_value(tensors, deterministic=True)
        log_prob_again, entropy, _ = policy.evaluate_actions(tensors, action)
        numbers = [tensor.tolist() for tensor in (params, value, log_prob, log_prob_again, entropy)]
        return [numbers, repr(policy.predict(observation)[0]), str(policy.observations.space), str(policy.training)]


SCRIPT = f"""
import json, sys, torch
from policysmith.store import load
{inspect.getsource(outputs)}
given = json.load(sys.stdin)
policies = {{place: load(place) for place in given}}
json.dump({{p: [outputs(policies[p], o) for o in observations] for p, observations in given.items()}}, sys.stdout)
"""


def plain(observation):
    if isinstance(observation, dict):
        return {key: plain(value) for key, value in observation.items()}
    return observation.tolist() if isinstance(observation, np.ndarray | np.generic) else observation


def observations_for(policy):
    space = policy.observations.space
    space.seed(3)
    return [plain(space.sample()) for _ in range(3)]


@pytest.fixture(scope="module")
def elsewhere(cases, tmp_path_factory):
    """Outputs of every case, by its name, computed by a fresh interpreter that knows only the directories."""
    directory = tmp_path_factory.mktemp("artifacts")
    places = {name: str(save(policy, directory / name)) for name, policy in cases.items()}
    given = {places[name]: observations_for(policy) for name, policy in cases.items()}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=directory,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    computed = json.loads(done.stdout)
    return {name: computed[place] for name, place in places.items()}


def test_a_new_process_computes_the_same_outputs(case, cases, elsewhere):
    policy = cases[case].eval()
    assert elsewhere[case] == [outputs(policy, observation) for observation in observations_for(policy)]
