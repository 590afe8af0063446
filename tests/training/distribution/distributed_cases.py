"""What two gloo processes on this machine do in tests of distribution; started once for many cases.

In: names of functions here. Out: what each gave on every rank.
"""

import os
import socket
import traceback
from functools import partial

import gymnasium as gym
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

import policysmith
from policysmith import api
from policysmith.errors import WiringError
from policysmith.training.distribution import ALONE, joined
from policysmith.training.distribution.choice import strategy_of
from policysmith.training.optim.averaging import WeightAverage
from policysmith.training.optim.optimizers import Optimizers
from policysmith.training.ppo.ppo import PPO
from policysmith.training.rollout.collector import Collector
from policysmith.training.rollout.rollout import Rollout
from policysmith.training.run import offline_run
from tests.training import played as glue
from tests.training.offline_data import BOX, REMEMBERING, config, walk


def weights_of(policy):
    return {name: tensor.detach().clone() for name, tensor in policy.state_dict().items()}


def two_processes(place, *cases):
    """{case: [what rank 0 gave, what rank 1 gave]}."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked: a process of its own would spend seconds on imports.
    processes.start_processes(_process, (port, str(place), cases), nprocs=2, start_method="fork")
    found = [torch.load(f"{place}/rank{rank}.pt", weights_only=False) for rank in range(2)]
    for rank, by_case in enumerate(found):
        for case, value in by_case.items():
            assert not isinstance(value, str), f"rank {rank}, {case}:\n{value}"
    return {case: [by_case[case] for by_case in found] for case in cases}


def _process(rank, port, place, cases):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {}
    for case in cases:
        name, *options = case.split(":")
        try:
            found[case] = globals()[name](rank, place, *options)
        except Exception:
            found[case] = traceback.format_exc()
            break
    torch.save(found, f"{place}/rank{rank}.pt")
    dist.destroy_process_group()


def clone(batch_size, world_options=(), model=None, **training):
    experiment = config(model=model, batch_size=batch_size, validation_share=0.0, updates=9, **training)
    result = api.train_offline(experiment, world_options, dataset=walk(), progress=False)
    return {"weights": weights_of(result.policy), "losses": result.losses["training"], "metrics": result.metrics}


def cloning(rank, place, strategy):
    return clone(8, [f"training.strategy={strategy}"])


IN_PARTS = {"accumulate": 3, "ema": 0.8}  # of 8 rows each rank makes parts of 3, 3 and 2


def averaged(rank, place, strategy):
    return clone(8, [f"training.strategy={strategy}"], **IN_PARTS)


FROZEN = {
    "type": "graph",
    "components": {
        "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [16], "freeze": True},
        "policy": {"type": "action_head", "in_keys": "trunk"},
        "state_value": {"type": "value_head", "in_keys": "trunk"},
    },
}


def frozen(rank, place, strategy):
    return clone(8, [f"training.strategy={strategy}"], FROZEN)


def rollout_of(policy, count=4, steps=8, case="CartPole-v1"):
    torch.manual_seed(0)
    environments = gym.make_vec(case, count, vectorization_mode="sync", vector_kwargs=SAME_STEP)
    rollout = Collector(policy.eval(), environments, seed=0).collect(steps)
    environments.close()
    return rollout


SAME_STEP = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}


def half(rollout, rank):
    """The columns of one rank's environments."""

    def cut(value):
        if isinstance(value, torch.Tensor):
            return value.chunk(2, dim=1)[rank]
        return (
            [cut(item) for item in value] if isinstance(value, list) and value and torch.is_tensor(value[0]) else value
        )

    return Rollout(**{name: cut(value) for name, value in vars(rollout).items()})


def cart_pole_policy(model="mlp"):
    environment = {"id": "CartPole-v1"}
    return policysmith.build({"environment": environment, "model": model}, seed=0)


def ppo_update(policy, rollout, strategy=ALONE, **options):
    algorithm = PPO(**{"epochs": 2, "minibatches": 1, "entropy_coef": 0.01} | options)
    optimizer = algorithm.optimizer(policy)
    strategy.follow(optimizer)
    scalars = algorithm.update(policy.train(), optimizer, rollout, strategy=strategy)
    strategy.release()
    return {"weights": weights_of(policy), "scalars": scalars}


def uneven_rollout(policy):
    """Of 16 rows each, the first rank may learn from 9: by four minibatches that makes three, and four of the other."""
    rollout = rollout_of(policy)
    rollout.valid = torch.ones_like(rollout.rewards, dtype=torch.bool)
    rollout.valid[:7, 0] = False
    return rollout


def uneven(rank, place, minibatches, strategy="ddp", accumulate="1"):
    policy = cart_pole_policy()
    rollout = half(uneven_rollout(policy), rank)
    with joined() as world:
        chosen = strategy_of(PPO(strategy=strategy), world, policy)
        return ppo_update(policy, rollout, chosen, minibatches=int(minibatches), accumulate=int(accumulate))


def ppo(rank, place, strategy, accumulate="1"):
    policy = cart_pole_policy()
    rollout = half(rollout_of(policy), rank)
    with joined() as world:
        algorithm = PPO(strategy=strategy)
        return ppo_update(policy, rollout, strategy_of(algorithm, world, policy), accumulate=int(accumulate))


def drawn(rank, place, strategy, accumulate):
    """Of 24 and 20 rows, in an order that each rank draws for itself: more minibatches on the first than the other."""
    policy = glue.built(glue.REGULARIZED)
    with joined() as world:
        chosen = strategy_of(PPO(strategy=strategy), world, policy)
        torch.manual_seed(glue.SEEDS[rank])
        return ppo_update(policy, glue.of_rank(rank), chosen, **glue.TOGETHER, accumulate=int(accumulate))


def half_ill(rank, place, what, strategy="ddp"):
    """The second rank has a reward that is not finite, or no row to learn from; the first has neither."""
    policy = cart_pole_policy()
    before, rollout = weights_of(policy), half(rollout_of(policy), rank)
    if rank == 1 and what == "loss":
        rollout.rewards[3, 0] = float("nan")
    if rank == 1 and what == "rows":
        rollout.valid = torch.zeros_like(rollout.rewards, dtype=torch.bool)
    with joined() as world:
        algorithm = PPO(epochs=2, minibatches=2, normalize_advantage=False, strategy=strategy)
        chosen = strategy_of(algorithm, world, policy)
        optimizer = algorithm.optimizer(policy)
        chosen.follow(optimizer)
        algorithm.update(policy.train(), optimizer, rollout, strategy=chosen)
        chosen.release()
    return {"before": before, "weights": weights_of(policy), "skipped": optimizer.guard.taken()}


def half_infinite(rank, place):
    """A loss whose value alone is not finite, on one rank: its gradients are."""
    weight = torch.nn.Parameter(torch.ones(2))
    with joined() as world:
        optimizer = Optimizers.of([weight], 0.1)
        ALONE.__class__(world).follow(optimizer)
        for step in range(3):
            optimizer.step(weight.sum() + (float("inf") if rank == 1 and step == 1 else 0.0))
    return {"weight": weight.detach(), "skipped": optimizer.guard.taken()}


def expert_steps(policy, tasks_by_step, strategy=ALONE, parts=1):
    """Adam over losses of rows with these tasks; in the second step some experts have moments and no rows.

    With two parts, what an expert learns from is in one of them only.
    """
    optimizer = Optimizers.of(list(policy.parameters()), 0.01)
    strategy.follow(optimizer)
    for step, tasks in enumerate(tasks_by_step):
        rows = torch.arange(12).reshape(4, 3).float().sin().repeat(len(tasks) // 4, 1) + step  # alike on both ranks
        obs = {"observation": rows + torch.tensor(tasks).unsqueeze(1), "task": torch.tensor(tasks)}
        optimizer.step(_expert_losses(policy, obs, strategy, parts), 0.5)
    without = [p.grad is None for p in policy.parameters()] if strategy is ALONE or not strategy.shards else None
    strategy.release()
    return {"weights": weights_of(policy), "without": without}


def _expert_losses(policy, obs, strategy, parts):
    cut = zip(obs["observation"].chunk(parts), obs["task"].chunk(parts), strict=True)
    for index, (rows, tasks) in enumerate(cut):
        make = partial(_expert_loss, policy, {"observation": rows, "task": tasks}, tasks % 2)
        yield strategy.loss(make, 1 / parts, final=index == parts - 1)


def _expert_loss(policy, obs, actions):
    log_prob, _, value = policy.evaluate_actions(obs, actions)
    return value.square().mean() - log_prob.mean()


TASKS = [([0, 1, 2, 3], [0, 1, 2, 3]), ([0, 0, 0, 0], [1, 1, 1, 1])]  # of both ranks, by step


def expert_policy():
    space = gym.spaces.Dict(observation=BOX, task=gym.spaces.Discrete(5))
    return policysmith.build(
        {"model": {"type": "moe", "layer_width": 8, "num_layers": 1}}, space, gym.spaces.Discrete(2), seed=1
    ).train()


def experts(rank, place, strategy, parts="1"):
    policy = expert_policy()
    with joined() as world:
        chosen = strategy_of(PPO(strategy=strategy), world, policy)
        return expert_steps(policy, [tasks[rank] for tasks in TASKS], chosen, int(parts))


BATCH_NORM = {
    "type": "graph",
    "batch_coupled": True,
    "components": {
        "trunk": {"type": "mlp", "in_keys": "observation", "hidden": [16], "norm": "batch"},
        "policy": {"type": "action_head", "in_keys": "trunk"},
        "state_value": {"type": "value_head", "in_keys": "trunk"},
    },
}


SGD = {"optimizer": {"type": "sgd", "learning_rate": 0.05}}  # Adam would step by the noise in the gradients of biases


def batch_norm(rank, place, synchronised):
    return clone(8, [f"training.sync_batch_norm={synchronised}"], BATCH_NORM, **SGD)


def remembering(rank, place, strategy):
    """Windows of different lengths, so that ranks have different numbers of steps."""
    return clone(2, [f"training.strategy={strategy}"], REMEMBERING, sequence_length=4, burn_in=1, accumulate=2)


def online_config(num_envs, strategy=None, **training):
    return {
        "seed": 1,
        "environment": {"id": "CartPole-v1", "num_envs": num_envs},
        "observation": {"normalize": True},
        "model": {**BATCH_NORM},
        "training": {"type": "ppo", "rollout_steps": 16, "strategy": strategy, "ema": 0.9, **training},
        "evaluation": {"episodes": 2},
    }


def online(rank, place, strategy):
    experiment = online_config(2, strategy, total_steps=256, minibatches=3, accumulate=2, checkpoint_every=64)
    output = f"{place}/online-{strategy}"
    result = api.train(experiment, output=output, progress=False)
    told = {"weights": weights_of(result.policy), "steps": result.steps, "returns": result.returns}
    return {**told, "artifact": result.artifact, "files": sorted(result.files), "mean": result.evaluation.mean}


def begin(rank, place, strategy):
    """Five updates, the last of them after a checkpoint, and then an end as by a kill."""
    options = {"validation_share": 0.0, "updates": 9, "checkpoint_every": 4, **IN_PARTS}
    experiment = config(batch_size=8, strategy=strategy, **options)
    update = offline_run.OfflineRun.update

    def die(run, count):
        update(run, count)
        if count == 5:
            raise InterruptedError

    offline_run.OfflineRun.update = die
    try:
        api.train_offline(experiment, dataset=walk(), output=f"{place}/run-{strategy}", progress=False)
    except InterruptedError:
        return None
    finally:
        offline_run.OfflineRun.update = update


def go_on(rank, place, strategy, updates):
    result = api.train_offline(
        overrides=[f"training.updates={updates}", "training.batch_size=8", f"training.strategy={strategy}"],
        dataset=walk(), resume=f"{place}/run-{strategy}", progress=False,
    )  # fmt: skip
    return {"weights": weights_of(result.policy), "artifact": result.artifact}


def swapped_update(policy, rollout, strategy=ALONE):
    """An update, a swap that rebuilds the heads and a swap that is rolled back, and an update by other components."""
    algorithm = PPO(epochs=2, minibatches=1, optimizers={"actor": {"type": "sgd", "learning_rate": 0.05}})
    optimizer = algorithm.optimizer(policy)
    strategy.follow(optimizer)
    average = WeightAverage(policy, 0.5)
    average.follow(optimizer)
    algorithm.update(policy.train(), optimizer, rollout, strategy=strategy)
    seed = 5 + strategy.world.rank  # the first rank's weights count
    policy.replace_component("actor", {"type": "mlp", "hidden": [24]}, resize=True, optimizer=optimizer, seed=seed)
    algorithm.update(policy, optimizer, rollout, strategy=strategy)
    policy.replace_component("actor", {"type": "mlp", "hidden": [7, 24]}, optimizer=optimizer, seed=seed)
    policy.rollback()
    algorithm.update(policy, optimizer, rollout, strategy=strategy)
    learning = weights_of(policy)
    average.settle()
    return {"weights": learning, "average": weights_of(policy)}


def swapped(rank, place, strategy):
    policy = cart_pole_policy()
    rollout = half(rollout_of(policy), rank)
    with joined() as world:
        chosen = strategy_of(PPO(strategy=strategy), world, policy)
        if strategy == "ddp":
            return swapped_update(policy, rollout, chosen) | {"refused": [refusal(policy, chosen, guard=True)]}
        sharded = refusal(policy, chosen)
        with chosen.whole():
            return {"refused": [sharded, refusal(policy, chosen)]}


def refusal(policy, strategy, **options):
    """What a swap says that can't be."""
    optimizer, before = Optimizers.of(list(policy.parameters())), weights_of(policy).keys()
    strategy.follow(optimizer)
    width = policy.plan.node("actor").measure.outputs[0].shape[0]
    try:
        policy.replace_component("actor", {"type": "mlp", "hidden": [7, width]}, optimizer=optimizer, **options)
    except WiringError as error:
        assert weights_of(policy).keys() == before
        return str(error)
    return "nothing"
