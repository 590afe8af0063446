"""Every code block of the README and the docs runs; every example does what it says."""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs import registration
from typer.testing import CliRunner

import policysmith
from policysmith.cli import app
from policysmith.config.load import load
from policysmith.registry import default_registry
from policysmith.tuning.search import make_search

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHARES = 4  # of the pages: one process for each imports torch once, and they run side by side
SPACE = spaces.Dict(
    image=spaces.Box(0, 255, (84, 84, 3), np.uint8),
    y=spaces.Box(-1, 1, (3,)),
    room=spaces.Discrete(5),
    speed=spaces.Box(-1, 1, (2,)),
)


def _texts(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def _blocks(language):
    return [
        pytest.param(block, id=f"{page.name}-{i}") for page in PAGES for i, block in enumerate(_texts(page, language))
    ]


@pytest.mark.parametrize("share", range(SHARES))
def test_the_python_of_every_page_runs(share, tmp_path):
    files = []
    for page in PAGES[share::SHARES]:
        for index, block in enumerate(_texts(page, "python")):
            folder = tmp_path / f"{page.stem}-{index}"
            folder.mkdir()
            (folder / "block.py").write_text(block, encoding="utf-8")
            files.append(folder / "block.py")
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    command = [sys.executable, ROOT / "tests" / "run_blocks.py", *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", _blocks("yaml"))
def test_yaml_block_is_right(block, tmp_path):
    path = tmp_path / "block.yaml"
    path.write_text(block)
    (tmp_path / "base.yaml").write_text("environment: {id: CartPole-v1}\n")
    nested = "observation." in block
    space = SPACE if nested else spaces.Box(-1, 1, (4,))
    known = "spaces:" in block or "environment: {id: CartPole-v1" in block
    given = {} if known else {"observation_space": space, "action_space": spaces.Discrete(2)}
    if "{tune:" in block:  # which every command but `tune` refuses
        options = {"metric": None, "sampler": "tpe", "pruner": "none", "seed": 0, "output": tmp_path}
        assert make_search(load(path), None, default_registry, **options).spaces
        return
    assert policysmith.check(path, **given) == []


@pytest.mark.parametrize("name", policysmith.api.presets())
def test_preset_is_right(name):
    assert policysmith.check(name) == []


@pytest.mark.parametrize("name", [name for name in policysmith.api.presets() if not name.startswith("board/")])
def test_a_presets_policy_is_stored_and_loaded(name, tmp_path):
    policy = policysmith.build(name)
    policysmith.save(policy, tmp_path / "run")
    found = policysmith.load(tmp_path / "run").state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in policy.state_dict().items())


@pytest.fixture
def examples(monkeypatch):
    """The folder of examples can be imported from."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_example_configuration_trains(path):
    result = policysmith.train(path, ["training.total_steps=1024"], progress=False, evaluate=False)
    assert result.steps == 1024


def test_the_page_of_environments_runs(tmp_path, monkeypatch):
    page = ROOT / "docs" / "environments.md"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corridor.py").write_text(_texts(page, "python")[0])
    (tmp_path / "corridor.yaml").write_text(_texts(page, "yaml")[0])
    try:
        for line in _texts(page, "bash")[0].splitlines():
            words = line.split()[1:]
            words += ["training.total_steps=512", "evaluation.episodes=2"] if "train" in words else []
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, result.output
    finally:
        registration.registry.pop("Corridor-v0", None)
    assert (tmp_path / "runs" / "corridor" / "manifest.json").is_file()


def test_own_loop_learns():
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import own_loop
    finally:
        sys.path.pop(0)
    assert own_loop.main(120) > 60, "an untrained policy holds the pole for about 20 steps"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name", ["cartpole", "acrobot", "pendulum", "minigrid-empty", "transformer/tiny", "gtrxl", "mla-moe"]
)
def test_preset_solves_its_environment(name, tmp_path):
    result = policysmith.train(name, output=tmp_path / "run", progress=False)
    assert result.evaluation.mean >= result.policy.config["training"]["solved_at"]


def test_the_hot_swap_example_improves_a_policy(examples, capsys):
    import hot_swap

    scores = hot_swap.main()
    assert scores["just after"] == scores["before"] < 475 <= scores["at the end"]
    assert "at the end" in capsys.readouterr().out


def test_the_memory_example_plots_side_by_side(examples, tmp_path, capsys):
    import memory_is_needed

    scores = memory_is_needed.main(2048, tmp_path)
    assert scores.keys() == {"mlp", "lstm", "gtrxl", "mla"}
    assert (tmp_path / "memory_is_needed.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_memory_example_needs_memory(examples, tmp_path):
    import memory_is_needed

    scores = memory_is_needed.main(output=tmp_path)
    assert scores.pop("mlp") < 0.75
    assert min(scores.values()) > 0.95, scores


@pytest.mark.slow
def test_the_cloning_example_clones(examples):
    import clone_cartpole

    scores = clone_cartpole.main()
    assert scores["clone"] > 0.8 * scores["teacher"] > 150


def test_the_serving_example_answers_eight_callers_at_once(examples, monkeypatch):
    import serve

    config = {"environment": {"id": "CartPole-v1"}, "model": {"type": "mlp", "hidden": [16]}}
    policy, twin = (policysmith.build(config, seed=0).eval() for _ in range(2))
    monkeypatch.setattr(serve.Handler, "log_message", lambda *_: None)
    observations = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(0)).numpy()
    server, start = serve.make_server(policy, 0), threading.Barrier(8)  # the very first calls fall together
    serving = threading.Thread(target=server.serve_forever)
    serving.start()

    def call(caller):
        connection = http.client.HTTPConnection(*server.server_address, timeout=60)
        start.wait()
        given = [json.dumps({"observation": row.tolist()}) for row in caller] + ['{"observation": [1]}']
        found = []
        for body in given:
            connection.request("POST", "/", body)
            response = connection.getresponse()
            found.append((response.status, json.loads(response.read())))
        connection.close()
        return found

    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(call, observations))
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    for caller, (*found, refused) in zip(observations, answers, strict=True):
        assert found == [(200, {"action": int(twin.predict(row)[0])}) for row in caller]
        assert refused[0] == 400 and "error" in refused[1]
