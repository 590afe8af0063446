"""Laws 1 and 9: what the plan says is what the built model does, and one seed gives the same weights."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

import policysmith.parts  # noqa: F401 - registers `mlp`, which is put beside the subject
from policysmith.graph.assemble import build_modules
from policysmith.testing.case import PART, Subject, require, tuple_of

__all__ = [
    "building_leaves_the_global_generator",
    "others_keep_their_weights",
    "planned_counts_are_real",
    "planned_flops_are_real",
    "planned_shapes_are_real",
    "planning_makes_nothing",
    "seeds_decide_the_weights",
]

# torch's own table lacks the attention kernel of CPUs.
ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop.__wrapped__}  # type: ignore[attr-defined]


def planned_shapes_are_real(subject: Subject) -> None:
    """Every output has the planned shape and dtype, for one row and for several."""
    model = subject.model().eval()
    plan = subject.plan()
    edges = [plan.edges[key] for key in plan.node(PART).spec.out_keys]
    for batch in (1, 5):
        found = [(tuple(t.shape), t.dtype) for t in tuple_of(model(*subject.tensors(batch)))]
        planned = [((batch, *edge.shape), edge.dtype) for edge in edges]
        require(found == planned, f"a batch of {batch} gives {found}, planned is {planned}")


def planned_counts_are_real(subject: Subject) -> None:
    """Parameters and buffers, their number and bytes, are known before anything is allocated."""
    plan, model = subject.plan(), subject.model()
    measure, parameters, buffers = plan.node(PART).measure, list(model.parameters()), list(model.buffers())
    found = (
        sum(p.numel() for p in parameters),
        sum(p.numel() * p.element_size() for p in parameters),
        sum(b.numel() for b in buffers),
        sum(b.numel() * b.element_size() for b in buffers),
    )
    planned = (measure.parameters, measure.parameter_bytes, measure.buffers, measure.buffer_bytes)
    require(found == planned and plan.parameter_count == found[0], f"counts {found}, planned are {planned}")


def planned_flops_are_real(subject: Subject) -> None:
    """The planned operations of a row are those that a run counts."""
    model, batch = subject.model().eval(), 3
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        model(*subject.tensors(batch))
    planned, found = subject.plan().node(PART).measure.flops * batch, counter.get_total_flops()
    require(planned == found, f"{found} operations, planned are {planned}")


def planning_makes_nothing(subject: Subject) -> None:
    """A plan draws no random number."""
    before = torch.get_rng_state()
    subject.plan()
    require(torch.equal(torch.get_rng_state(), before), "planning drew from torch's global generator")


def building_leaves_the_global_generator(subject: Subject) -> None:
    """Weights come from a stream of their own."""
    plan, before = subject.plan(), torch.get_rng_state()
    build_modules(plan, seed=3)
    require(torch.equal(torch.get_rng_state(), before), "building drew from torch's global generator")


def seeds_decide_the_weights(subject: Subject) -> None:
    """One seed gives the same weights, another one other matrices."""
    first, again, other = (subject.model(seed).state_dict() for seed in (1, 1, 2))
    require(all(torch.equal(first[n], again[n]) for n in first), "one seed gave two models")
    matrices = [n for n, p in subject.model().named_parameters() if p.dim() >= 2]
    same = [n for n in matrices if torch.equal(first[n], other[n])]
    require(not same, f"another seed gives the same {same}")


def others_keep_their_weights(subject: Subject) -> None:
    """A component that is added beside it leaves its weights as they were."""
    beside = subject.plan(extra={"before": {"type": "mlp", "in_keys": subject.input_names}})
    found, alone = build_modules(beside, 0)[PART].state_dict(), build_modules(subject.plan(), 0)[PART].state_dict()
    changed = [n for n in alone if not torch.equal(found[n], alone[n])]
    require(not changed, f"a component beside it changes {changed}")
