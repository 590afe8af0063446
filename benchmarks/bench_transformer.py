"""Transformers as memories: acting with a cache, what the cache takes, and what one block costs.

In: nothing. Out: rows of the result table. The peers are recomputing the whole context at every step,
multi-head attention's cache, and `nn.TransformerEncoderLayer`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Row, compare, latency
from policysmith.ops.init import initialize
from policysmith.ops.timeline import over_sequence
from policysmith.parts import EncoderBlock, TransformerMemory

DIM, HEADS, LAYERS, CONTEXT = 256, 8, 2, 256
LATENT_TARGET = 1 / 6


def _memory(attention: str = "mha") -> TransformerMemory:
    memory = TransformerMemory(DIM, layers=LAYERS, context=CONTEXT, attention={"type": attention, "heads": HEADS})
    initialize(memory)
    return memory.eval()


def _filled(memory: TransformerMemory, steps: int) -> Any:
    """The state after `steps` steps of one episode."""
    state = memory.initial_state(1)
    for start in range(0, steps, CONTEXT):
        _, state = memory.unroll(torch.randn(1, min(CONTEXT, steps - start), DIM), state, None)
    return state


def acting_with_cache() -> list[Row]:
    """One step at 256 steps of context beside a pass over all 256, and late in an episode beside early."""
    memory = _memory()
    x, window = torch.randn(1, DIM), torch.randn(1, CONTEXT, DIM)
    with torch.no_grad():
        full, late = _filled(memory, CONTEXT), _filled(memory, 20 * CONTEXT)

        def recompute() -> Tensor:
            y = window
            timeline = over_sequence(y, memory.position, causal=True)
            for block in memory.blocks:
                y, _ = block(y, timeline)
            return memory.norm(y)[:, -1]

        stepping = compare(lambda: memory(x, full), recompute, rounds=31)
        flat = compare(lambda: memory(x, late), lambda: memory(x, full), rounds=61)
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
