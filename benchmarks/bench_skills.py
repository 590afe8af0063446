"""Experts of a skill library beside a model of those in use; and skills' code beside Python's own execution of it.

In: nothing. Out: rows of the result table; one step is forward, backward and Adam.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, compare, latency, median_interval

FEATURES, ACTIONS, WIDTH, BATCH, ACTIVE = 1345, 17, 512, 256, 4  # the sizes of Craftax-Classic's symbolic observation


def skill_experts() -> list[Row]:
    """64 experts of which 4 act, beside 4; 32 of which 4 act, beside one-hot mixing; a remapped run's memory."""
    x, task = torch.randn(BATCH, FEATURES), torch.arange(BATCH) % ACTIVE
    many = compare(_step(_model(64), x, task * 16), _step(_model(ACTIVE), x, task), rounds=15, inner=1)
    model = _model(32)
    dense = compare(_step(model, x, task * 8), _step(model, x, task * 8, one_hot), rounds=7, inner=1)
    size = f"batch {BATCH}, {FEATURES} features, width {WIDTH}"
    return [
        latency(f"step, 64 experts of which {ACTIVE} act, beside {ACTIVE} experts, {size}", many, 1.15),
        latency(f"step, 32 experts of which {ACTIVE} act, beside every expert on every row, {size}", dense, 0.2),
        _memory(),
        *skill_code(),
    ]


REWARDS = """
import numpy as np

def gained(diff, weight=1.0):
    return weight * max(diff, 0)

def task_0_is_done(steps): return steps > 5
def task_0_reward(doors_diff, inventory_diff, closest_blocks, closest_blocks_prev):
    closer = closest_blocks_prev["door"] - closest_blocks["door"]
    total = gained(doors_diff["open"]) + 0.05 * closer
    for name in ("key", "ball"):
        total += 0.5 * min(inventory_diff[name], 0)
    return total
def task_0_network_number(): return 0

def task_1_is_done(steps): return steps > 5
def task_1_reward(rows, rows_prev):
    closer = np.abs(rows_prev).sum(axis=-1) - np.abs(rows).sum(axis=-1)
    near = np.where(closer > 0, 1.0, 0.5)
    return near * closer + 0.1 * np.maximum(rows[:, 0] - rows_prev[:, 0], 0.0) - np.clip(rows[:, 1], -1.0, 1.0) ** 2
def task_1_network_number(): return 0
"""


def skill_code() -> list[Row]:
    """Rewards of 512 rows by translated code, beside Python's own execution of the text: one by one, and as arrays."""
    import numpy as np

    from policysmith.skills.modules.tasks import task_and_reward_funcs
    from policysmith.skills.sandbox.running import Skill
    from policysmith.skills.sandbox.translate import translated

    skill, names = Skill(translated(REWARDS)), {}
    skill.execute()
    exec(REWARDS, names)
    ours, peer = task_and_reward_funcs(skill.functions, skill.explained), task_and_reward_funcs(names)
    rng, few = np.random.default_rng(0), {"open": 1, "key": 1, "ball": 0}
    row = {"doors_diff": few, "inventory_diff": few, "closest_blocks": {"door": 3}, "closest_blocks_prev": {"door": 4},
           "steps": 3, "position": (1, 2), "direction": 0}  # fmt: skip
    arrays = {"rows": rng.normal(size=(512, 16)), "rows_prev": rng.normal(size=(512, 16))}
    one_by_one = compare(*(lambda f=f: [f.reward(0, row) for _ in range(512)] for f in (ours, peer)), rounds=25)
    at_once = compare(*(lambda f=f: f.reward(1, arrays) for f in (ours, peer)), rounds=25)
    return [
        latency("rewards of 512 rows one by one, translated code beside Python's execution of it", one_by_one, 1.1),
        latency("rewards of 512 rows as arrays, translated code beside Python's execution of it", at_once, 1.1),
    ]


def one_hot(model: nn.Module, x_BD: Tensor, task_B: Tensor) -> tuple[Tensor, Tensor]:
    """The dense way: every expert computes every row, and a one-hot sum picks."""
    mask_BE = nn.functional.one_hot(task_B, model.num_tasks).float()
    outputs = []
    for role in ("actor", "critic"):
        every_BEO = torch.stack([getattr(model, f"{role}_networks_{i}")(x_BD) for i in range(model.num_tasks)], 1)
        outputs.append(torch.einsum("be,beo->bo", mask_BE, every_BEO))
    return outputs[0], outputs[1].squeeze(-1)


def _model(experts: int) -> nn.Module:
    from policysmith.skills import ActorCriticMoE

    return ActorCriticMoE(ACTIONS, WIDTH, num_tasks=experts, in_features=FEATURES)


def _step(model: nn.Module, x: Tensor, task: Tensor, run: Callable[..., tuple[Tensor, Tensor]] | None = None):
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        logits, value = model(x, task) if run is None else run(model, x, task)
        (logits.square().mean() + value.square().mean()).backward()
        optimizer.step()

    return step


def _memory() -> Row:
    """Bytes of weights and moments of a run that holds experts {0, 2, 7} of eight, beside those of all eight."""
    held = []
    for count in (3, 8):
        model = _model(count)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        logits, value = model(torch.randn(24, FEATURES), torch.arange(24) % count)
        (logits.sum() + value.sum()).backward()
        optimizer.step()
        moments = sum(t.nbytes for state in optimizer.state.values() for t in state.values())
        held.append(moments + sum(p.nbytes for p in model.parameters()))
    ratio = held[0] / held[1]
    ours, peer = (f"{size / 2**20:.1f} MiB" for size in held)
    low, high = median_interval([ratio])
    return Row("weights and moments, experts {0, 2, 7} remapped, beside all 8", ours, peer, ratio, low, high, 0.376)
