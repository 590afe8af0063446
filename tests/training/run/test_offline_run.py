"""`train_offline`: it does what a loop written by hand does, holds episodes out, and can be stopped at any moment."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import policysmith
from policysmith import api
from policysmith.errors import CheckpointError, ConfigError, DatasetError, PolicysmithError
from policysmith.registry import default_registry
from policysmith.store import PolicyStore
from policysmith.training.datasets import write_episodes
from policysmith.training.logging.json_lines import JsonLines
from policysmith.training.logging.report import Report
from policysmith.training.offline.batches import Sampler, evaluate, split_episodes, units_of
from policysmith.training.offline.data import OfflineData
from policysmith.training.rollout.dataset_recording import record_episodes
from policysmith.training.run import offline_run
from policysmith.training.sections import Environment
from tests.training.offline_data import ACTIONS, BOX, REMEMBERING, config, flowing, walk

ROOT = Path(__file__).parents[3]


def weights(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


def train(objective="bc", kind="discrete", model=None, data=None, output=None, **training):
    episodes = walk(kind) if data is None else data
    return api.train_offline(
        config(objective, model, **training), dataset=episodes, output=output, progress=False, evaluate=False
    )


def test_cloning_is_what_a_loop_written_by_hand_does():
    data = walk()
    ours = train(data=data, validation_share=0.0, max_grad_norm=None, learning_rate=0.01).policy
    policy = policysmith.build(config(), BOX, ACTIONS["discrete"])
    adam = torch.optim.Adam(policy.parameters(), lr=0.01)
    rows = data.rows(torch.arange(len(data)))
    for update in range(30):
        epoch, index = divmod(update, -(-len(rows) // 16))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(3 * 1_000_003 + epoch + 1))
        chosen = rows[order][index * 16 : (index + 1) * 16]
        logits, _ = policy(data.columns["observation"][chosen])
        loss = F.cross_entropy(logits, data.columns["action"][chosen] - 2)
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(weights(ours), weights(policy), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        *((kind, None) for kind in ACTIONS),
        ("discrete", REMEMBERING),
        pytest.param("dict", REMEMBERING, marks=pytest.mark.slow),
    ],
    ids=lambda value: {str: value, dict: "memory"}.get(type(value), "memoryless"),
)
def test_actions_of_every_kind_are_cloned(kind, model):
    result = train(kind=kind, model=model, updates=120, learning_rate=0.02, data=walk(kind, 24))
    losses = [loss for _, loss in result.losses["validation"]]
    assert losses[-1] < losses[0] - 0.1
    told = {"accuracy", "mse"} & {tag.removeprefix("validation/") for tag in result.metrics}
    assert told == {"box": {"mse"}, "dict": {"accuracy", "mse"}}.get(kind, {"accuracy"})
    assert result.metrics.get("validation/accuracy", 1.0) > 0.6


def test_scoring_is_evaluating_without_the_value():
    policy = policysmith.build(config(), BOX, ACTIONS["discrete"])
    seen, acted = torch.randn(6, 3), torch.randint(2, 5, (6,))
    mask = F.one_hot(acted - 2, 3).bool() | (torch.rand(6, 3) < 0.5)
    log_prob, entropy, _ = policy.evaluate_actions(seen, acted, mask)
    for found, expected in zip(policy.scoring(1)(seen, acted, mask), (log_prob, entropy), strict=True):
        torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(
        policy.scoring(1)(seen, acted, mask)[0].sum(), policy.parameters(), allow_unused=True
    )
    used = {name for (name, _), g in zip(policy.named_parameters(), gradients, strict=True) if g is not None}
    assert {name.split(".")[1] for name in used} == {"actor", "policy"}


def test_masks_count_in_the_likelihood():
    """Where one action is legal, its likelihood is 1 and nothing is to be learnt."""
    data = walk()
    alone = F.one_hot(data.columns["action"] - 2, 3).bool()
    masked = replace(data, columns={**data.columns, "action_mask": alone})
    result = train(data=masked)
    assert result.metrics["training/loss"] == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(weights(result.policy), weights(policysmith.build(config(), BOX, ACTIONS["discrete"])))


def test_held_out_episodes_never_teach():
    """Their actions may be anything."""
    data = walk()
    teach, held_out = split_episodes(len(data), 0.25, 3)
    assert len(held_out) == 3 and sorted([*teach.tolist(), *held_out.tolist()]) == list(range(12))
    before = weights(train(data=data, validation_share=0.25).policy)
    data.columns["action"][data.rows(held_out)] = 2
    assert torch.equal(before, weights(train(data=data, validation_share=0.25).policy))
    data.columns["action"][data.rows(teach)] = 2
    assert not torch.equal(before, weights(train(data=data, validation_share=0.25).policy))


def test_validation_is_the_mean_over_held_out_transitions():
    data = walk()
    result = train(data=data, validation_share=0.25, batch_size=7)
    rows = data.rows(split_episodes(len(data), 0.25, 3)[1])
    seen, acted = data.columns["observation"][rows], data.columns["action"][rows]
    log_prob, _, _ = result.policy.evaluate_actions(seen, acted)
    assert result.metrics["validation/loss"] == pytest.approx(-log_prob.mean().item(), rel=1e-5)
    right = (result.policy.predict(seen.numpy())[0] == acted.numpy()).mean()
    assert result.metrics["validation/accuracy"] == pytest.approx(right)


def test_validation_changes_nothing():
    often = train(report_every=1, validation_share=0.25)
    assert torch.equal(weights(often.policy), weights(train(validation_share=0.25).policy))
    assert [update for update, _ in often.losses["validation"]] == list(range(1, 31))


@pytest.mark.parametrize("options", [{}, {"sequence_length": 2}, {"sequence_length": 3, "burn_in": 9}])
def test_windows_of_a_memory_count_every_step_once(options):
    """The loss of all windows is that of the whole episodes, unless they begin without what came before."""
    data = walk()
    policy = policysmith.build(config(model=REMEMBERING), BOX, ACTIONS["discrete"])
    everyone = torch.arange(len(data))
    units = units_of(policy, data, everyone, options.get("sequence_length"), options.get("burn_in", 0))
    sampler = Sampler(OfflineData(data, policy), units, 5, 0)
    rows = torch.cat([batch.rows for batch in sampler])
    assert torch.equal(rows.sort().values, data.rows(everyone))
    found = torch.cat([evaluate(policy, batch).log_prob for batch in sampler])
    start, length = int(data.starts[0]), int(data.lengths[0])
    whole = slice(start, start + length)
    seen, acted = data.columns["observation"][whole], data.columns["action"][whole]
    same = 2 if options == {"sequence_length": 2} else length
    log_prob = policy.evaluate(seen[None], acted[None])[0][0]
    mine = {int(row): value for row, value in zip(rows, found, strict=True)}
    for t in range(same):
        torch.testing.assert_close(mine[start + t], log_prob[t])


@pytest.mark.parametrize(
    ("objective", "kind", "model"),
    [
        ("bc", "discrete", None),
        pytest.param("iql", "discrete", None, marks=pytest.mark.slow),
        ("flow_matching", "box", flowing()),
    ],
    ids=["bc", "iql", "flow_matching"],
)
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, monkeypatch, objective, kind, model
):
    rate = {"type": "linear", "start": 0.01, "end": 0.0}
    place, run = write_episodes(tmp_path / "data", walk(kind)), tmp_path / "run"
    description = on_disk(place, objective, model, checkpoint_every=15, learning_rate=rate)
    whole = api.train_offline(description, progress=False).policy
    original = offline_run.OfflineRun.update

    def fail(self, update):
        if update == 17:
            raise KeyboardInterrupt
        return original(self, update)

    monkeypatch.setattr(offline_run.OfflineRun, "update", fail)
    with pytest.raises(KeyboardInterrupt):
        api.train_offline(description, output=run, progress=False)
    monkeypatch.undo()
    resumed = api.train_offline(resume=run, progress=False)
    assert torch.equal(weights(whole), weights(resumed.policy))
    assert resumed.updates == 30 and torch.equal(weights(policysmith.load(run)), weights(whole))
    steps = [json.loads(line)["step"] for line in (run / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 30


def on_disk(place, objective="bc", model=None, **training):
    return config(objective, model, dataset={"type": "memmap", "path": str(place)}, **training)


def test_epochs_are_passes_over_the_data_though_batches_change_their_size(tmp_path):
    """So they do where a run goes on in more processes, or fewer."""
    run, seen, data = tmp_path / "run", [], walk()
    experiment = config(updates=None, epochs=2, batch_size=4, validation_share=0.0)
    first = api.train_offline(experiment, dataset=data, output=run, progress=False)
    rows = data.rows(torch.arange(len(data)))
    small, large = -(-len(rows) // 4), -(-len(rows) // 16)
    assert first.updates == 2 * small

    class Noting(Sampler):
        def drawn(self, update):
            seen.append(super().drawn(update))
            return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policysmith.training.offline.offline.Sampler", Noting)
        changes = ["training.epochs=3", "training.batch_size=16"]
        then = api.train_offline(overrides=changes, dataset=data, resume=run, progress=False)
    assert then.updates == 2 * small + large and then.metrics["charts/epoch"] == 3.0
    assert torch.equal(torch.cat(seen).sort().values, rows), "each once"


def test_ctrl_c_saves_and_can_be_resumed(tmp_path, monkeypatch):
    place = write_episodes(tmp_path / "data", walk())
    original = offline_run.OfflineRun.update

    def interrupt(self, update):
        if update == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, update)

    monkeypatch.setattr(offline_run.OfflineRun, "update", interrupt)
    result = api.train_offline(on_disk(place), output=tmp_path / "run", progress=False)
    assert result.interrupted and result.updates == 5 and result.artifact == tmp_path / "run"
    monkeypatch.undo()
    resumed = api.train_offline(resume=tmp_path / "run", progress=False)
    assert not resumed.interrupted
    whole = api.train_offline(on_disk(place), progress=False)
    assert torch.equal(weights(resumed.policy), weights(whole.policy))
    assert resumed.losses == whole.losses, "of all updates since the last report, before and after"


def test_the_same_seed_gives_the_same_weights():
    assert torch.equal(weights(train().policy), weights(train().policy))
    other = api.train_offline(config(), dataset=walk(), seed=4, progress=False)
    assert not torch.equal(weights(train().policy), weights(other.policy))


def test_a_run_leaves_an_artifact_logs_and_a_curve(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = write_episodes(tmp_path / "data", walk())
    result = api.train_offline(on_disk(place, report_every=10), output=tmp_path / "run", progress=False)
    assert {"learning_curve.png", "model.svg", "manifest.json"} <= {path.name for path in result.artifact.iterdir()}
    lines = [json.loads(line) for line in (result.artifact / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[-1]["validation/loss"] == result.metrics["validation/loss"]
    events = EventAccumulator(str(result.artifact / "logs"))
    events.Reload()
    assert {"training/loss", "validation/accuracy", "charts/SPS"} <= set(events.Tags()["scalars"])
    stored = policysmith.load(result.artifact)
    assert torch.equal(weights(stored), weights(result.policy)) and stored.config["training"]["type"] == "offline"


def test_paths_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    write_episodes(tmp_path / "experiments" / "data", walk())
    file = tmp_path / "experiments" / "clone.json"
    file.write_text(json.dumps(on_disk("data")))
    monkeypatch.chdir(tmp_path)
    result = api.train_offline(file, ["training.updates=2"], progress=False)
    assert result.policy.config["training"]["dataset"]["path"] == str(tmp_path / "experiments" / "data")
    with pytest.raises(DatasetError, match="there is no such directory"):
        api.train_offline(file, ["training.dataset.path=data"], progress=False)
    assert api.train_offline(file, ["training.dataset.path=experiments/data"], progress=False).updates == 30


def test_a_dataset_tells_the_spaces_where_nothing_else_does(tmp_path):
    description = on_disk(write_episodes(tmp_path / "data", walk()))
    assert policysmith.check(description) == []
    assert "observation" in str(api.describe(description)["inputs"])
    description["training"]["dataset"]["path"] = "nowhere"
    assert "there is no such directory" in str(policysmith.check(description)[0])
    assert "required, unless spaces are given" in str(policysmith.check(config())[0])


def test_what_is_not_finite_is_null_in_json(tmp_path):
    logger = JsonLines(tmp_path)
    logger.report(Report(3, 1, [], {"a": float("nan"), "b": 0.5}), 10.0)
    logger.close()
    told = {"step": 3, "iteration": 1, "a": None, "b": 0.5, "charts/SPS": 10.0}
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == told


def test_a_normaliser_sees_the_data_once_before_training():
    description = {**config(), "observation": {"normalize": True}}
    data = walk()
    policy = api.train_offline(description, ["training.validation_share=0.0"], dataset=data, progress=False).policy
    normaliser = policy.components["observation_normalizer"].module
    seen = data.columns["observation"][data.rows(torch.arange(len(data)))]
    assert normaliser.count == data.steps
    torch.testing.assert_close(normaliser.mean, seen.mean(0), atol=1e-4, rtol=1e-3, check_dtype=False)


def test_a_callback_ends_the_training():
    registry = default_registry.copy()

    @registry.register("enough", slot="callback")
    def enough(steps: int):
        return lambda report: report.step >= steps

    description = config(report_every=5)
    description["training"]["callbacks"] = [{"type": "enough", "steps": 10}]
    result = api.train_offline(description, dataset=walk(), registry=registry, progress=False)
    assert result.updates == 10 and not result.interrupted


def test_a_policy_is_judged_where_there_is_an_environment():
    description = config() | {"environment": {"id": "policysmith/Countdown-v0"}, "evaluation": {"episodes": 2}}
    policy = policysmith.build(description)
    data = record_episodes(policy, Environment("policysmith/Countdown-v0"), 4)
    assert api.train_offline(description, dataset=data, progress=False).evaluation.mean == 3.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"updates": 3, "epochs": 2}, "training.updates: says how long to train, and so does epochs=2"),
        ({"objective": "cloning"}, "unknown offline_objective 'cloning'"),
        ({"validation_share": 1.0}, "training.validation_share: must be < 1"),
        ({"dataset": {"type": "memap", "path": "x"}}, "did you mean 'memmap'"),
        ({"dataset": {"type": "memmap"}}, "training.dataset.path: required option"),
    ],
)
def test_a_wrong_configuration_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        train(**change)


def test_what_is_not_offline_is_sent_elsewhere(cartpole_config):
    with pytest.raises(ConfigError, match="'ppo' learns by playing: run policysmith train"):
        api.train_offline(cartpole_config)
    with pytest.raises(ConfigError, match="'offline' learns from recorded data: run policysmith train-offline"):
        policysmith.train({**config(), "environment": {"id": "CartPole-v1"}}, progress=False)
    del cartpole_config["training"]
    with pytest.raises(ConfigError, match="training: this section is required"):
        api.train_offline(cartpole_config)
    with pytest.raises(ConfigError, match=r"training.dataset: required to train"):
        api.train_offline(config())


def test_one_episode_can_not_be_split():
    with pytest.raises(DatasetError, match=r"has one episode, and validation_share=0.1 would hold one out"):
        train(data=walk(episodes=1))
    assert train(data=walk(episodes=1), validation_share=0.0).updates == 30


def test_an_observation_that_is_not_finite_stops_the_run_with_its_row():
    data = walk()
    data.columns["observation"][3] = float("nan")
    with pytest.raises(PolicysmithError, match=r"'observation' is nan in row 3 \(episode 0, step 3\)"):
        train(data=data, validation_share=0.0)


def test_other_data_is_not_taken_for_that_the_run_began_with(tmp_path):
    first, second = (write_episodes(tmp_path / name, walk(episodes=n)) for name, n in (("a", 12), ("b", 11)))
    run = api.train_offline(on_disk(first), output=tmp_path / "run", progress=False).artifact
    with pytest.raises(DatasetError, match="is not what the run began with"):
        api.train_offline(
            resume=run, overrides=[f"training.dataset.path={second}", "training.updates=40"], progress=False
        )
    with pytest.raises(ConfigError, match="30 updates of 30 are done already"):
        api.train_offline(resume=run, progress=False)
    with pytest.raises(CheckpointError, match="holds a policy already"):
        api.train_offline(on_disk(first), output=run, progress=False)


def test_an_online_run_is_not_resumed_offline(tmp_path, cartpole_config):
    artifact = policysmith.train(cartpole_config, ["training.total_steps=256"], output=tmp_path / "run",
                                 progress=False, evaluate=False).artifact  # fmt: skip
    cartpole_config["training"] = config()["training"]
    with pytest.raises(CheckpointError, match="no state of offline training"):
        api.train_offline(cartpole_config, dataset=walk(), resume=artifact, progress=False)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"observation": torch.zeros(100, 4)}, r"'observation' has shape \(4,\), expected \(3,\)"),
        ({"action": torch.full((100,), 7)}, "'action' has values from 7 to 7, and the space has 2 to 4"),
        ({"action": torch.full((100,), 2.0)}, "'action' is torch.float32, and choices are integers"),
        ({"action_mask": torch.ones(100, 4)}, r"'action_mask' has shape \(4,\), expected \(3,\)"),
    ],
)
def test_data_that_does_not_fit_the_policy_is_refused(columns, message):
    data = walk()
    rows = len(data.columns["reward"])
    changed = {name: column[:1].expand(rows, *column.shape[1:]) for name, column in columns.items()}
    with pytest.raises(DatasetError, match=message):
        train(data=replace(data, columns={**data.columns, **changed}))


def test_policies_on_the_way_and_at_the_end_are_kept_in_a_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    described = {**config("bc", updates=None, epochs=4), "name": "clone", "store": {"every": 2}}
    result = api.train_offline(described, dataset=walk(), output="run", progress=False, evaluate=False)
    store = PolicyStore("policies")
    records = store.find("name:clone")[::-1]
    assert [record.epoch for record in records] == [2, 4, 4] and records[-1].step == result.updates
    assert records[0].metrics["training"] > records[-1].metrics["training"] > 0
    assert "validation" in records[-1].metrics and len(store.lineage("latest")) == 3
    assert torch.equal(weights(store.load("latest")), weights(result.policy))


def test_components_learn_by_rules_of_their_own_and_go_on_by_them(tmp_path):
    rules = {"optimizer": "adamw", "optimizers": {"critic": {"type": "sgd", "learning_rate": 0.0}}}
    described = config("bc", {"type": "mlp", "hidden": [8]}, **rules)
    whole = api.train_offline(described, dataset=walk(), output=tmp_path / "run", progress=False, evaluate=False)
    fresh = policysmith.build(described, BOX, ACTIONS["discrete"])
    for name, before in fresh.components.items():
        moved = not torch.equal(weights(before), weights(whole.policy.components[name]))
        assert moved is (name in ("actor", "policy")), name
    plain = train(model={"type": "mlp", "hidden": [8]}).policy
    assert not torch.equal(weights(plain.components["actor"]), weights(whole.policy.components["actor"]))
    with pytest.raises(ConfigError, match=r"training\.optimizers\.trnk"):
        api.train_offline(config("bc", optimizers={"trnk": "sgd"}), dataset=walk(), progress=False)
