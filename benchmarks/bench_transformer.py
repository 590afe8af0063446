"""Transformers as memories: acting with a cache, what the cache takes, and what one block costs.

In: nothing. Out: rows of the result table. The peers are recomputing the whole context at every step,
multi-head attention's cache, and `nn.TransformerEncoderLayer`.
"""

from typing import Any

import torch
from torch import nn

import policysmith
from benchmarks.harness import Row, compare, latency
from policysmith.graph.module_view import bare
from policysmith.ops.init import initialize
from policysmith.ops.reset_state import State
from policysmith.ops.timeline import over_sequence
from policysmith.parts import EncoderBlock, TransformerMemory
from policysmith.policy.actor_critic import ActorCritic

DIM, HEADS, LAYERS, CONTEXT = 256, 8, 2, 256
LATENT_TARGET = 1 / 6


def _memory(attention: str = "mha") -> TransformerMemory:
    memory = TransformerMemory(DIM, layers=LAYERS, context=CONTEXT, attention={"type": attention, "heads": HEADS})
    initialize(memory)
    return memory.eval()


def _policy() -> ActorCritic:
    memory = {"type": "transformer_memory", "layers": LAYERS, "context": CONTEXT}
    memory["attention"] = {"type": "mha", "heads": HEADS}
    components = {
        "memory": {**memory, "in_keys": "observation"},
        "policy": {"type": "action_head", "in_keys": "memory"},
        "value": {"type": "value_head", "in_keys": "memory"},
    }
    spaces = {"observation": {"type": "box", "shape": [DIM]}, "action": {"type": "discrete", "n": 4}}
    policy = policysmith.build({"model": {"type": "graph", "components": components}, "spaces": spaces}).eval()
    assert policy.has_memory
    return policy


def _filled(policy: ActorCritic, steps: int) -> State:
    """The state after `steps` steps of one episode."""
    state = policy.init_state(1)
    for start in range(0, steps, CONTEXT):
        _, _, state = policy.unroll(torch.randn(1, min(CONTEXT, steps - start), DIM), state)
    return state


def acting_with_cache() -> list[Row]:
    """One action at 256 steps of context beside a pass over all 256, and late in an episode beside early.

    The peer runs the same blocks over the window, causal and without a cache, then heads and sampling on the last step.
    """
    policy = _policy()
    act, memory = policy.acting(), bare(policy.components["memory"])
    heads = [bare(policy.components[name]) for name in ("policy", "value")]
    x, window = torch.randn(1, DIM), torch.randn(1, CONTEXT, DIM)
    with torch.inference_mode():
        full, late = _filled(policy, CONTEXT), _filled(policy, 20 * CONTEXT)

        def recompute() -> Any:
            y = window
            timeline = over_sequence(y, memory.position, causal=True)
            for block in memory.blocks:
                y, _ = block(y, timeline)
            last = memory.norm(y[:, -1])
            params, value = (head(last) for head in heads)
            return policy.actions.choose(params, (), False), value

        stepping = compare(lambda: act(x, full), recompute, rounds=31)
        flat = compare(lambda: act(x, late), lambda: act(x, full), rounds=61)
    return [
        latency(f"one step with a cache of {CONTEXT} steps, beside recomputing them", stepping, 0.1),
        latency(f"one step after {20 * CONTEXT:,} steps, beside after {CONTEXT}", flat, 1.05),
    ]


def cache_bytes() -> list[Row]:
    """Bytes that a row keeps for one step of one layer: latent attention beside multi-head attention."""
    sizes = []
    for attention in ("mla", "mha"):
        state = _memory(attention).initial_state(1)
        caches = [t for name, t in state.items() if name.startswith("layers.0.")]
        sizes.append(sum(t.numel() * t.itemsize for t in caches) / CONTEXT)
    ratio = sizes[0] / sizes[1]
    name = f"cache of a step and layer, mla beside mha, d={DIM}, {HEADS} heads"
    ours, peer = (f"{size:,.0f} bytes" for size in sizes)
    return [Row(name, ours, peer, ratio, ratio, ratio, LATENT_TARGET)]


def block_passes() -> list[Row]:
    """Forward and backward of one block: pre-norm, GELU, 4·d hidden units."""
    block = EncoderBlock(DIM, {"type": "mha", "heads": HEADS}, {"type": "mlp", "activation": "gelu"})
    initialize(block)
    peer = nn.TransformerEncoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    x = torch.randn(32, 64, DIM)
    timeline = over_sequence(x)

    def backward(module: nn.Module, run: Any) -> None:
        module.zero_grad()
        run().square().mean().backward()

    passes = compare(
        lambda: backward(block, lambda: block(x, timeline)[0]),
        lambda: backward(peer, lambda: peer(x)),
        rounds=31,
        inner=1,
    )
    return [latency("transformer block forward + backward, 32×64×256", passes, 1.05)]
