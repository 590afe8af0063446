"""The whole grid of transformers: a cell builds, learns, stores, steps and exports, or is refused by its sentence."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

import policysmith
from policysmith.errors import ConfigError

T, FEATURES, ACTIONS = 5, 6, 3
ATTENTIONS: dict[str, dict[str, Any]] = {
    "mha": {"heads": 2},
    "gqa": {"heads": 4, "kv_heads": 2},
    "mqa": {"heads": 2},
    "mla": {"heads": 2},
    "window": {"heads": 2, "size": 3},
    "cross": {"heads": 2},
    "pyramid": {"heads": 2},
    "latent_queries": {"heads": 2, "n_latents": 3},
}
ARCHITECTURES = ("encoder_only", "encoder_decoder", "decoder_only")
FEEDFORWARDS: dict[str, dict[str, Any]] = {"mlp": {}, "swiglu": {}, "moe": {"experts": 3, "top_k": 2}}
NORMS = ("layer", "rms", "group")
RESIDUALS = ("add", "gated", "gtrxl")
GRID = list(itertools.product(ATTENTIONS, ARCHITECTURES, FEEDFORWARDS, NORMS, RESIDUALS))
QUICK = random.Random(0).sample(GRID, 12)
CROSS = "attention 'cross' reads a source, where one is needed that reads its own stream"
MIXES = "'latent_queries' lets a step see the whole sequence"


def config(cell: tuple[str, ...], **more: Any) -> dict[str, Any]:
    attention, architecture, feedforward, norm, residual = cell
    model = {
        "type": "transformer",
        "dim": 16,
        "layers": 1,
        "architecture": architecture,
        "attention": {"type": attention, **ATTENTIONS[attention]},
        "feedforward": {"type": feedforward, **FEEDFORWARDS[feedforward]},
        "norm": norm,
        "residual": residual,
        **more,
    }
    return {"seed": 0, "model": model}


def built(cell: tuple[str, ...], shape: tuple[int, ...], **more: Any) -> Any:
    return policysmith.build(config(cell, **more), spaces.Box(-1, 1, shape), spaces.Discrete(ACTIONS))


def refusal(cell: tuple[str, ...], memory: bool) -> str | None:
    """The sentence that the grid lists for a cell, or None where it must work."""
    attention, architecture, *_ = cell
    if memory and architecture != "decoder_only":
        return "needs a whole window, and with context the steps come one by one"
    if attention == "cross":
        return CROSS
    if attention == "latent_queries" and architecture == "decoder_only":
        return MIXES
    return None


def walk(cell: tuple[str, ...], folder: Path) -> None:
    for memory in (False, True):
        sentence = refusal(cell, memory)
        shape, more = ((FEATURES,), {"context": 3}) if memory else ((T, FEATURES), {})
        if sentence is not None:
            with pytest.raises(ConfigError) as caught:
                built(cell, shape, **more)
            assert sentence in str(caught.value)
        elif memory:
            walk_memory(built(cell, shape, **more), folder / "memory")
        else:
            walk_window(built(cell, shape, **more), folder / "window")


def walk_window(policy: Any, folder: Path) -> None:
    obs, actions = torch.randn(4, T, FEATURES), torch.tensor([0, 1, 2, 0])
    learn(policy, lambda: policy.evaluate_actions(obs, actions, return_aux=True))
    policy.eval()
    policysmith.save(policy, folder)
    action, log_prob, value = policy.get_action_and_value(obs, deterministic=True)
    torch.testing.assert_close(policysmith.load(folder).get_action_and_value(obs, deterministic=True)[2], value)
    torch.testing.assert_close(policy.evaluate_actions(obs, action)[0], log_prob)
    exported(policy, lambda p, obs: p.get_action_and_value(obs, deterministic=True), (obs[:1],))


def walk_memory(policy: Any, folder: Path) -> None:
    assert policy.has_memory
    obs, actions = torch.randn(2, T, FEATURES), torch.tensor([[0, 1, 2, 0, 1]] * 2)
    first = torch.tensor([[True, False, False, True, False], [False, False, True, False, False]])
    learn(policy, lambda: policy.evaluate(obs, actions, None, first, return_aux=True))
    policy.eval()
    policysmith.save(policy, folder)
    loaded = policysmith.load(folder)
    params, value, after = policy.unroll(obs, None, first)
    torch.testing.assert_close(loaded.unroll(obs, None, first)[0], params)
    state = policy.init_state(2)
    for t in range(T):
        _, _, one, state = policy.act(obs[:, t], state, first[:, t])
        torch.testing.assert_close(one, value[:, t], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(state, after, atol=1e-5, rtol=1e-4)
    exported(policy, lambda p, *x: p.act(*x, deterministic=True), (obs[:, 0], policy.init_state(2), first[:, 0]))


def learn(policy: Any, evaluate: Any) -> None:
    """One step of Adam: the loss is finite and every parameter that has a gradient moves."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    log_prob, entropy, value, aux = evaluate()
    loss = log_prob.mean() + value.square().mean() + 0.1 * entropy.mean()
    loss = loss + sum(term for name, term in aux.items() if name.endswith("_loss"))
    loss.backward()
    before = [p.detach().clone() for p in policy.parameters()]
    optimizer.step()
    moved = [not torch.equal(p, b) for p, b in zip(policy.parameters(), before, strict=True)]
    assert loss.isfinite() and sum(moved) > 0.7 * len(moved)


def exported(policy: Any, call: Any, inputs: tuple[Any, ...]) -> None:
    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

        def forward(self, *inputs: Any) -> Any:
            return call(self.policy, *inputs)

    with torch.no_grad():
        program = torch.export.export(Call(), inputs).module()
        compare(program(*inputs), call(policy, *inputs))


def compare(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    elif isinstance(expected, dict):
        for key, value in expected.items():
            compare(found[key], value)
    else:
        for one, other in zip(found, expected, strict=True):
            compare(one, other)


@pytest.mark.parametrize("cell", QUICK, ids="-".join)
def test_a_cell_of_the_grid(cell: tuple[str, ...], tmp_path: Path) -> None:
    walk(cell, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.timeout(1200)
def test_the_whole_grid(attention: str, architecture: str, tmp_path: Path) -> None:
    cells = [cell for cell in GRID if cell[:2] == (attention, architecture)]
    assert len(cells) == 27
    for index, cell in enumerate(cells):
        walk(cell, tmp_path / str(index))
