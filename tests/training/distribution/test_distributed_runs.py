"""Runs of several processes: other numbers of them resume, and one that fails ends all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from policysmith import api
from policysmith.training.datasets import write_episodes
from policysmith.training.distribution.shards import newest
from tests.training.distribution import distributed_cases as cases
from tests.training.distribution.test_distributed import STRATEGIES, assert_alike
from tests.training.offline_data import config, walk

pytestmark = pytest.mark.slow

PLUGIN = """
import os, signal
from policysmith.registry import register
from policysmith.training.offline.objectives.learner import bind
from policysmith.training.offline.objectives.bc import BehaviourCloning, Cloning

class Failing(Cloning):
    def loss(self, batch):
        self.count = getattr(self, "count", 0) + 1
        if self.count == 3 and os.environ["RANK"] == "1":
            if {killed}:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("the roof is on fire")
        return super().loss(batch)

@register("failing", slot="offline_objective")
class FailingCloning(BehaviourCloning):
    def start(self, start):
        return Failing(start.policy, bind(start, reader="failing"), self.entropy_coef)
"""


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, strategy):
    """Two are killed in update 5, one goes on from their checkpoint of update 4, two bring it to the end."""
    cases.two_processes(tmp_path, f"begin:{strategy}")
    run = tmp_path / f"run-{strategy}"
    assert (run / "shards" / "4").is_dir() == (strategy == "fsdp")
    assert newest(run).training.data["step"] == 4
    middle = ["training.updates=6", "training.batch_size=16"]
    result = api.train_offline(overrides=middle, dataset=walk(), resume=run, progress=False)
    assert result.updates == 6 and not (run / "shards").exists()
    (ranks,) = cases.two_processes(tmp_path, f"go_on:{strategy}:9").values()
    for rank in ranks:
        assert_alike(rank["weights"], cases.clone(16, ema=cases.IN_PARTS["ema"])["weights"])
    assert [rank["artifact"] for rank in ranks] == [run, None]


def test_a_checkpoint_in_shards_that_was_not_finished_does_not_count(tmp_path):
    cases.two_processes(tmp_path, "begin:fsdp")
    run = tmp_path / "run-fsdp"
    (run / "shards" / "4" / "training_state.json").unlink()
    assert newest(run).training.data["step"] == 0 and newest(run).weights is None


def torchrun(folder, *words, plugin=None):
    """What two processes of the command line say: (exit code, output, errors)."""
    plugins = [] if plugin is None else ["--plugin", str(plugin)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "policysmith", *plugins, *words]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout, done.stderr


def experiment_file(folder, objective="bc"):
    write_episodes(folder / "data", walk())
    experiment = config(objective, batch_size=8, updates=6, dataset={"type": "memmap", "path": "data"})
    (folder / "clone.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")


def test_the_command_line_under_torchrun_has_one_writer(tmp_path):
    experiment_file(tmp_path)
    code, output, errors = torchrun(tmp_path, "train-offline", "clone.yaml", "--output", "run", "--quiet")
    assert code == 0, errors
    assert output.split() == ["run"]
    assert (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.parametrize(("killed", "said"), [(False, "the roof is on fire"), (True, "SIGKILL")])
def test_a_rank_that_fails_ends_all_and_says_why(tmp_path, killed, said):
    experiment_file(tmp_path, "failing")
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN.replace("{killed}", str(killed)), encoding="utf-8")
    code, _, errors = torchrun(tmp_path, "train-offline", "clone.yaml", "--output", "run", plugin=plugin)
    assert code != 0
    assert said in errors, errors
