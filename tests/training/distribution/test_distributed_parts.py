"""What ranks decide each for itself, without a word to the others."""

import pytest
import torch

import policysmith
from policysmith import api
from policysmith.errors import ConfigError
from policysmith.registry import default_registry
from policysmith.training.distribution import World
from policysmith.training.distribution.choice import strategy_of
from policysmith.training.offline.objectives import Start
from policysmith.training.offline.offline import Offline
from policysmith.training.rollout.shared_gatherer import environment_seed
from tests.training.offline_data import ACTIONS, BOX, config, walk

SIZE = 3


def _samplers(size=SIZE, batch_size=4):
    episodes = walk()
    policy = policysmith.build(config(), BOX, ACTIONS["discrete"])
    algorithm = Offline(batch_size=batch_size, validation_share=0.25)
    learner = algorithm.objective.start(Start(policy, episodes, 0, default_registry))
    return [algorithm.samplers(learner, episodes, 0, World(rank, size)).training for rank in range(size)]


def _epoch(samplers, epoch=0):
    """Rows by update and rank, without those that do not count."""
    per_epoch = samplers[0].per_epoch
    updates = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    return [[s.batch(update).rows if s.weight(update) else torch.tensor([]) for s in samplers] for update in updates]


def test_every_row_goes_to_one_rank_once_an_epoch_and_epochs_differ():
    samplers = _samplers()
    rows = torch.cat([part for update in _epoch(samplers) for part in update])
    assert len(rows) == len(rows.unique()) == len(samplers[0].units)
    again = torch.cat([part for update in _epoch(samplers, 1) for part in update])
    assert sorted(again.tolist()) == sorted(rows.tolist()) and again.tolist() != rows.tolist()


def test_the_batch_of_an_update_does_not_depend_on_the_number_of_ranks():
    three, one = _samplers(3, 4), _samplers(1, 12)
    for parts, (whole,) in zip(_epoch(three), _epoch(one), strict=True):
        assert torch.cat(parts).tolist() == whole.tolist()


def test_weights_of_ranks_average_to_one_and_follow_the_rows():
    samplers = _samplers(batch_size=4)
    for update in range(samplers[0].per_epoch):
        weights = [s.weight(update) for s in samplers]
        rows = torch.tensor([len(s.batch(update).rows) if s.weight(update) else 0 for s in samplers])
        assert sum(weights) == pytest.approx(SIZE)
        torch.testing.assert_close(torch.tensor(weights), rows * SIZE / rows.sum())


def test_a_rank_without_rows_steps_along_without_counting():
    samplers = _samplers(batch_size=1)
    samplers[0].units = samplers[0].units[:1]
    for sampler in samplers[1:]:
        sampler.units = samplers[0].units
    assert [s.weight(0) for s in samplers] == [SIZE, 0.0, 0.0]
    assert [len(s.batch(0).rows) for s in samplers] == [1, 1, 1]


def test_environments_of_all_ranks_have_seeds_of_their_own():
    firsts = [environment_seed(7, World(rank, 2), 4) for rank in range(2)]
    assert firsts == [7, 11]
    assert environment_seed(None, World(1, 2), 4) is None


def test_a_run_that_goes_on_in_more_environments_ends_at_its_total(tmp_path):
    """As it does with more processes: progress is counted in steps, whatever an iteration was before."""
    experiment = {
        "environment": {"id": "CartPole-v1", "num_envs": 2},
        "model": {"type": "mlp", "hidden": [4]},
        "training": {"type": "ppo", "total_steps": 64, "rollout_steps": 16, "epochs": 1},
    }
    api.train(experiment, output=tmp_path / "run", progress=False, evaluate=False)
    more = ["environment.num_envs=4", "training.total_steps=256"]
    result = api.train(overrides=more, resume=tmp_path / "run", progress=False, evaluate=False)
    assert result.steps == 256


def test_random_numbers_follow_from_seed_rank_and_step():
    def drawn(seed, rank, step):
        World(rank, 2).reseed(seed, step)
        return torch.rand(()).item()

    wanted = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]
    first = [drawn(*key) for key in wanted]
    assert first == [drawn(*key) for key in wanted] and len(set(first)) == len(wanted)


def test_one_process_draws_as_it_did_and_is_told_its_own():
    world, state = World(), torch.get_rng_state()
    world.reseed(3, 4)
    assert torch.equal(torch.get_rng_state(), state)
    tensor = torch.arange(3.0)
    assert world.total(tensor) is tensor and world.mean(tensor, 0.0) is tensor
    assert world.told("this") == "this" and world.gathered(1) == [1] and world.any(True) and not world.any(False)
    assert strategy_of(object(), world, None).loss(lambda: tensor) is tensor


def test_an_algorithm_that_can_not_share_its_work_is_refused():
    with pytest.raises(ConfigError, match=r"training\.type: object has no option 'strategy', so 2 processes can't"):
        strategy_of(object(), World(0, 2), policysmith.build(config(), BOX, ACTIONS["discrete"]))


def test_sharding_refuses_an_objective_with_networks_of_its_own():
    policy = policysmith.build(config(), BOX, ACTIONS["discrete"])
    with pytest.raises(ConfigError, match=r"training\.strategy: 'fsdp' shards the policy alone"):
        strategy_of(Offline(strategy="fsdp"), World(0, 2), policy, torch.nn.Linear(1, 1))
