"""The visuomotor example from end to end: recorded, learnt from, killed, resumed, trained on by doing, served."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import policysmith
from policysmith import api
from policysmith.registry import load_plugin_file

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "visuomotor"
KILL = """
import os, signal, sys
from policysmith import api
from policysmith.registry import load_plugin_file
from policysmith.training.run import offline_run
load_plugin_file({plugin!r})
update = offline_run.OfflineRun.update
def kill(self, count):
    if count == 29: os.kill(os.getpid(), signal.SIGKILL)
    return update(self, count)
offline_run.OfflineRun.update = kill
api.train_offline({config!r}, {changes!r}, output={output!r}, progress=False)
"""
SERVE = """
import json, sys
import numpy as np
import policysmith
policy = policysmith.load(sys.argv[1])
seen = np.load(sys.argv[2])
action, _ = policy.predict({name: seen[name] for name in seen.files})
print(json.dumps(action.tolist()))
"""


def weights(policy, name):
    return torch.cat([t.detach().flatten().float() for t in policy.components[name].state_dict().values()])


@pytest.mark.slow
def test_a_policy_of_images_goes_from_recorded_episodes_to_service(tmp_path):
    load_plugin_file(EXAMPLE / "arm.py")
    policysmith.save(policysmith.build(EXAMPLE / "expert.yaml"), tmp_path / "expert")
    api.record(tmp_path / "expert", tmp_path / "data", 40)
    offline = [
        f"training.dataset={{type: memmap, path: {tmp_path / 'data'}}}",
        "training.epochs=6",
        "training.checkpoint_every=10",
        "evaluation.episodes=20",
    ]
    whole = api.train_offline(EXAMPLE / "offline.yaml", offline, progress=False)
    plugin, config, output = (str(place) for place in (EXAMPLE / "arm.py", EXAMPLE / "offline.yaml", tmp_path / "run"))
    code = KILL.format(plugin=plugin, config=config, changes=offline, output=output)
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed = api.train_offline(resume=output, progress=False)
    expected = whole.policy.state_dict()
    assert resumed.updates == whole.updates > 29
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.policy.state_dict().items())

    places = [f"model.components.{name}.load={output}" for name in ("backbone", "info_embedder", "action_decoder")]
    online = [*places, "training.total_steps=1600", "evaluation.episodes=20"]
    better = api.train(EXAMPLE / "online.yaml", online, output=tmp_path / "better", progress=False)
    for name in ("backbone", "info_embedder"):
        assert torch.equal(weights(better.policy, name), weights(resumed.policy, name)), name
    assert not torch.equal(weights(better.policy, "action_decoder"), weights(resumed.policy, "action_decoder"))

    served = policysmith.load(tmp_path / "better")
    seen = {leaf.name.removeprefix("observation."): leaf.space.sample() for leaf in served.observations.leaves}
    np.savez(tmp_path / "seen.npz", **seen)
    words = [sys.executable, "-c", SERVE, str(tmp_path / "better"), str(tmp_path / "seen.npz")]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    action, _ = served.predict(seen)
    assert np.allclose(json.loads(told), action, atol=1e-6) and action.shape == (2,)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_clones_the_expert_and_gets_better_by_doing(tmp_path):
    scores = runpy.run_path(str(EXAMPLE / "run.py"))["main"](tmp_path)
    blank = api.evaluate(policysmith.build(EXAMPLE / "policy.yaml"), episodes=50).mean
    assert scores["expert"] > scores["clone"] > 0.5 * blank, (scores, blank)
    assert scores["better"] > scores["clone"] - 0.2, scores
