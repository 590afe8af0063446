"""Two processes train as one does on a batch of both sizes together."""

import pytest
import torch

import policysmith
from tests.reference.networks import slow_trunk, weights_of
from tests.reference.optimizers import SlowAdam
from tests.reference.ppo import Share, each_row, looked_at, slow_ppo_update
from tests.training import played as glue
from tests.training.distribution import distributed_cases as cases
from tests.training.offline_data import ACTIONS, BOX, REMEMBERING, config

STRATEGIES = ("ddp", "fsdp")
QUICK = (*(f"{case}:{s}" for case in ("cloning", "averaged", "experts") for s in STRATEGIES),
         "experts:ddp:2", "experts:fsdp:2", "ppo:ddp:1", "ppo:fsdp:2", "batch_norm:true",
         "drawn:ddp:1", "drawn:fsdp:2", "half_infinite", "uneven:1", "uneven:4", "uneven:2:fsdp:2",
         *(f"half_ill:{what}:{s}" for what in ("loss", "rows") for s in STRATEGIES),
         "swapped:ddp", "swapped:fsdp")  # fmt: skip
SLOW = (*(f"{case}:{s}" for case in ("frozen", "remembering", "online") for s in STRATEGIES),
        "ppo:ddp:2", "ppo:fsdp:1", "batch_norm:true", "batch_norm:false")  # fmt: skip


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return cases.two_processes(tmp_path_factory.mktemp("quick"), *QUICK)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return cases.two_processes(tmp_path_factory.mktemp("slow"), *SLOW)


def assert_alike(found, wanted, tolerance=1e-5):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cloning_on_two_ranks_is_cloning_with_the_doubled_batch(quick, strategy):
    """The last batch of an epoch has fewer rows, and one rank one fewer than the other."""
    alone = cases.clone(16)
    for rank in quick[f"cloning:{strategy}"]:
        assert_alike(rank["weights"], alone["weights"])
        assert rank["losses"] == quick[f"cloning:{strategy}"][0]["losses"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batches_in_parts_and_averaged_weights_are_those_of_the_doubled_batch(quick, strategy):
    alone = cases.clone(16, ema=cases.IN_PARTS["ema"])
    assert any(not torch.allclose(alone["weights"][n], t) for n, t in cases.clone(16)["weights"].items()), "no average"
    for rank in quick[f"averaged:{strategy}"]:
        assert_alike(rank["weights"], alone["weights"])
        assert rank["losses"] == quick[f"averaged:{strategy}"][0]["losses"]


def assert_updated_as_one(ranks):
    policy = cases.cart_pole_policy()
    alone = cases.ppo_update(policy, cases.rollout_of(policy))
    for rank in ranks:
        assert_alike(rank["weights"], alone["weights"])
        assert rank["scalars"] == ranks[0]["scalars"]


@pytest.mark.parametrize("case", ["ppo:ddp:1", "ppo:fsdp:2"])
def test_a_ppo_update_on_two_ranks_is_one_of_both_rollouts(quick, case):
    assert_updated_as_one(quick[case])


def test_ranks_count_by_the_rows_they_learn_from(quick):
    policy = cases.cart_pole_policy()
    alone = cases.ppo_update(policy, cases.uneven_rollout(policy))
    for rank in quick["uneven:1"]:
        assert_alike(rank["weights"], alone["weights"])


@pytest.mark.parametrize("case", ["uneven:4", "uneven:2:fsdp:2"])
def test_ranks_with_different_numbers_of_minibatches_or_parts_neither_wait_forever_nor_drift(quick, case):
    first, second = quick[case]
    assert_alike(first["weights"], second["weights"], 0.0)


@pytest.mark.parametrize(("strategy", "accumulate"), [("ddp", 1), ("fsdp", 2)])
def test_ranks_with_orders_of_their_own_update_as_the_loop_over_all_rows(quick, strategy, accumulate):
    """Advantages are those of both ranks' minibatch, rows count alike, and what the weights cost counts once."""
    weights = weights_of(glue.built(glue.REGULARIZED))
    shares = [Share(glue.of_rank(rank), seed) for rank, seed in enumerate(glue.SEEDS)]
    options = {("rate" if k == "learning_rate" else k): v for k, v in glue.TOGETHER.items()} | {"penalty": glue.penalty}
    look = looked_at(slow_trunk)
    slow_ppo_update(weights, SlowAdam(1e-5), shares, each_row, look, accumulate=accumulate, **options)
    for rank in quick[f"drawn:{strategy}:{accumulate}"]:
        assert_alike({n.removeprefix("components."): t for n, t in rank["weights"].items()},
                     {n: w.detach().float() for n, w in weights.items()}, 2e-5)  # fmt: skip


def test_a_swap_on_two_ranks_is_one_of_a_single_process(quick):
    """The newcomers' gradients are averaged, by the rule of what they replace, and so are those of what stays."""
    policy = cases.cart_pole_policy()
    alone = cases.swapped_update(policy, cases.rollout_of(policy))
    for rank in quick["swapped:ddp"]:
        assert_alike(rank["weights"], alone["weights"])
        assert_alike(rank["average"], alone["average"])
        assert_alike(rank["weights"], quick["swapped:ddp"][0]["weights"], 0.0)


def test_a_swap_that_ranks_can_not_make_together_is_refused(quick):
    for rank in range(2):
        assert "guard would undo the swap on the one rank" in quick["swapped:ddp"][rank]["refused"][0]
        assert all("the weights are sharded" in said for said in quick["swapped:fsdp"][rank]["refused"])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_number_on_one_rank_that_is_not_finite_has_all_ranks_skip_the_step(quick, strategy):
    first, second = quick[f"half_ill:loss:{strategy}"]
    assert first["skipped"] == second["skipped"] and first["skipped"].steps == 4
    assert_alike(first["weights"], second["weights"], 0.0)
    assert_alike(first["weights"], first["before"], 0.0)


def test_a_loss_on_one_rank_that_is_not_finite_behind_sound_gradients_does_so_too(quick):
    for rank in quick["half_infinite"]:
        assert rank["skipped"] == (1, 1)
        torch.testing.assert_close(rank["weight"], torch.full((2,), 0.8))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_rank_without_a_row_to_learn_from_steps_along_without_counting(quick, strategy):
    first, second = quick[f"half_ill:rows:{strategy}"]
    assert first["skipped"].steps == second["skipped"].steps == 0
    assert_alike(first["weights"], second["weights"], 0.0)
    assert any(not torch.equal(first["weights"][n], t) for n, t in first["before"].items())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ppo:ddp:2", "ppo:fsdp:1"])
def test_parts_of_a_minibatch_add_up_before_ranks_exchange_gradients(slow, case):
    assert_updated_as_one(slow[case])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frozen_components_stay_as_they_are(slow, strategy):
    alone = cases.clone(16, model=cases.FROZEN)
    before = cases.weights_of(policysmith.build(config(model=cases.FROZEN), BOX, ACTIONS["discrete"]))
    for rank in slow[f"frozen:{strategy}"]:
        assert_alike(rank["weights"], alone["weights"])
        trunk = [name for name in before if ".trunk." in name]
        assert trunk and all(torch.equal(rank["weights"][name], before[name]) for name in trunk)


@pytest.mark.parametrize("strategy", [*STRATEGIES, "ddp:2", "fsdp:2"])
def test_an_expert_that_one_rank_uses_learns_and_one_that_none_uses_does_not_move(quick, strategy):
    alone = cases.expert_steps(cases.expert_policy(), [first + second for first, second in cases.TASKS])
    assert any(alone["without"]), "some experts must be without rows for this to say anything"
    for rank in quick[f"experts:{strategy}"]:
        assert_alike(rank["weights"], alone["weights"])
        assert rank["without"] in (None, alone["without"])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_windows_count_by_their_steps(slow, strategy):
    alone = cases.clone(4, model=REMEMBERING, sequence_length=4, burn_in=1)
    for rank in slow[f"remembering:{strategy}"]:
        assert_alike(rank["weights"], alone["weights"])


def test_synchronised_batch_normalisation_sees_the_doubled_batch(quick):
    alone = cases.clone(16, model=cases.BATCH_NORM, **cases.SGD)
    for rank in quick["batch_norm:true"]:
        assert_alike(rank["weights"], alone["weights"])


@pytest.mark.slow
def test_batch_normalisation_has_the_same_statistics_on_both_ranks(slow):
    first, second = slow["batch_norm:false"]
    assert_alike(first["weights"], second["weights"], 0.0)
    synchronised = slow["batch_norm:true"][0]["weights"]
    assert any(not torch.allclose(first["weights"][name], tensor) for name, tensor in synchronised.items())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_of_an_online_run_agree_and_one_writes(slow, strategy):
    first, second = slow[f"online:{strategy}"]
    assert_alike(first["weights"], second["weights"], 0.0)
    assert first["steps"] == second["steps"] == 256, "the transitions of both"
    assert first["returns"] == second["returns"] and first["returns"]
    assert first["mean"] == second["mean"]
    assert first["artifact"] and first["files"] and not second["artifact"] and not second["files"]
    stored = policysmith.load(first["artifact"])
    assert_alike(stored.state_dict(), first["weights"], 0.0)
    assert not (first["artifact"] / "shards").exists(), "the artifact has taken their place"
