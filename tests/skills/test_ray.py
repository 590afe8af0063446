"""Skills as tasks of a cluster of two nodes on this machine: trained, moved when a node is lost, and stopped."""

import threading

import pytest

from policysmith.errors import MissingExtraError
from policysmith.skills.scheduling.ray_launcher import RayLauncher

from .scheduling import World, until

SMALL = 80 * 1024 * 1024  # bytes of the object store: nothing goes through it
NODE = {"object_store_memory": SMALL, "include_dashboard": False}


def test_a_missing_ray_is_told_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'policysmith\[ray\]'"):
        RayLauncher()


pytest_ray = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]


class TestThisMachine:
    pytestmark = pytest_ray

    def test_without_an_address_ray_is_started_here_and_ended(self, tmp_path):
        ray = pytest.importorskip("ray")
        options = {"num_cpus": 2, "object_store_memory": SMALL}
        world = World(tmp_path, {"a": {}, "b": {"plan": ["a", "b"]}}, launcher={"type": "ray", "options": options})
        assert world.train().succeeded and world.heads() == {"a": 10, "b": 10}
        assert not ray.is_initialized()


def add_node(cluster):
    cluster.workers.append(cluster.add_node(num_cpus=1, **NODE))
    cluster.wait_for_nodes()


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a processor each; the head has none, so that either can be lost."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, **NODE})
    made.workers = []
    add_node(made)
    add_node(made)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def slow(steps=60):
    return {"training": {"pace": 0.05, "total_steps": steps}}


class TestCluster:
    pytestmark = pytest_ray

    def test_skills_run_on_both_nodes_and_survive_the_loss_of_one(self, tmp_path, cluster):
        world = World(tmp_path, {"a": slow(), "b": slow(), "c": {"plan": ["a", "b", "c"]}}, parallel=2, launcher="ray")
        world.data["scheduler"]["backoff"] = 0.5

        def lose():
            until(lambda: len(world.events("start")) == 2, 90)
            until(lambda: all(list(world.run_folder(s).glob("*_policies/10")) for s in "ab"), 60)
            cluster.remove_node(cluster.workers.pop(), allow_graceful=False)

        thread = threading.Thread(target=lose)
        thread.start()
        report = world.train()
        thread.join()
        add_node(cluster)  # for the next test; nodes are added by the main thread only
        assert report.succeeded, report.skills
        lost = [name for name in "ab" if report.skills[name].attempt == 2]
        assert len(lost) == 1
        first, second = world.events("start", lost[0])
        assert (first["step"], second["step"] >= 10) == (0, True)
        assert world.heads() == {"a": 60, "b": 60, "c": 10}
        assert len(world.events("end", lost[0])) == 1  # the one on the lost node has not gone on

    def test_a_skill_waits_for_the_resources_that_it_needs(self, tmp_path, cluster):
        """Three fit the scheduler's budget, and two the cluster."""
        world = World(tmp_path, {name: slow(60) for name in "abc"}, parallel=3, launcher="ray")
        assert world.train().succeeded
        running, most = 0, 0
        for event in sorted(world.events(), key=lambda event: event["at"]):
            running += {"start": 1, "end": -1}[event["event"]]
            most = max(most, running)
        assert most == 2

    def test_stopped_workers_save_and_waiting_tasks_are_called_off(self, tmp_path, cluster):
        skills = {"a": slow(), "b": {**slow(), "resources": {"cpus": 64}}}
        world, stop = World(tmp_path, skills, parallel=2, launcher="ray"), threading.Event()
        threading.Thread(target=lambda: (until(lambda: world.events("start", "a"), 90), stop.set())).start()
        report = world.train(stop=stop)
        assert {name: str(status.phase) for name, status in report.skills.items()} == {"a": "stopped", "b": "stopped"}
        (saved,) = world.events("saved")
        assert world.train("skills.b.resources.cpus=1", "training.pace=0").succeeded
        assert world.events("start", "a")[1]["step"] == saved["step"]

    def test_ray_is_joined_once_and_left_as_it_was(self, cluster):
        import ray

        RayLauncher().close()
        assert ray.is_initialized()

    def test_a_worker_that_fails_is_told_of_and_retried(self, tmp_path, cluster):
        skills = {"a": {"training": {"kill_at": 8}}, "b": {"training": {"fail_at": 2}}}
        report = World(tmp_path, skills, parallel=2, retries=1, launcher="ray").train()
        assert str(report.skills["a"].phase) == "done" and report.skills["a"].attempt == 2
        assert report.skills["b"].reason == "its worker ended with status 3: the reward is not a number"
