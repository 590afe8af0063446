"""Law 1: what the plan says of shapes, types, parameters and cost is what the built model does."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from policysmith.registry import default_registry

from .cases import CASES, IMPORT_FAILURES, case_of, every_case, every_type, model_of, plan_of, tensors_of

# torch's own table lacks the attention kernel of CPUs.
ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop.__wrapped__}
# Types that hold equal parts of which each row uses one → how many there are in their cases.
PARTS = {"expert_action_head": 2, "expert_value_head": 2}
MATMULS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


def test_every_module_of_the_package_imports():
    assert not IMPORT_FAILURES


@every_type
def test_every_type_has_a_case(name):
    case_of(name)


def test_no_case_is_left_of_a_type_that_is_gone():
    assert sorted(set(CASES) - {n for n in CASES if ":" in n} - set(default_registry.names("component"))) == []


@every_case
def test_planned_flops_are_those_of_a_run_and_positive_where_matrices_multiply(case_id):
    model = model_of(case_id).eval()
    batch = 3
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        model(*tensors_of(case_id, batch))
    flops = model.plan.node("part").measure.flops
    assert flops * batch == counter.get_total_flops()
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, MATMULS))
    assert flops >= 2 * weights / PARTS.get(case_of(case_id)[0], 1)


@every_case
def test_planning_draws_no_random_number_and_makes_no_weight(case_id):
    before = torch.get_rng_state()
    plan = plan_of(case_id)
    assert torch.equal(torch.get_rng_state(), before)
    assert plan.node("part").part.entry.name in case_id
