"""Experts of a skill library: a model of many beside one of those in use, and beside every expert on every row.

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
