"""LoRA: few weights learn beside frozen ones; checkpoints and whoever reads a weight see what they should."""

import copy

import pytest
import torch
from torch import nn

from policysmith.graph import TensorComponent
from policysmith.wrappers import LoRA, SafeModule
from policysmith.wrappers.lora import LoRALinear

from .parts import COPIERS, chain, observations, policy_of

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def lively(adapted):
    """With deltas that do something."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0, 0.5)
    return adapted


def output(component, x=X):
    return component({"input": x})["output"]


@pytest.mark.parametrize("alpha", [None, 8.0])
def test_a_layer_computes_the_formula(alpha):
    module = chain(4, 3)
    adapted = lively(LoRA(module, rank=2, alpha=alpha))
    state = adapted.state_dict()
    scale = 1.0 if alpha is None else alpha / 2
    weight = state["0.weight"] + scale * state["0.lora_B"] @ state["0.lora_A"]
    torch.testing.assert_close(output(adapted), X @ weight.T + state["0.bias"])
    torch.testing.assert_close(module.module[0].weight, weight)
    assert state["0.lora_A"].shape == (2, 4) and state["0.lora_B"].shape == (3, 2)


def test_at_first_nothing_changes_and_only_deltas_learn():
    module = chain(4, 8, 3)
    expected = output(module)
    adapted = LoRA(module, rank=2)
    assert torch.equal(output(adapted), expected)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], 0.5)
    frozen = {n: p.detach().clone() for n, p in adapted.named_parameters() if "lora_" not in n}
    for _ in range(2):
        output(adapted).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(dict(adapted.named_parameters())[n], p) for n, p in frozen.items())
    assert not torch.allclose(output(adapted), expected)


def test_a_checkpoint_without_deltas_loads_and_undoes_them():
    bare, adapted = chain(4, 8, 3), lively(LoRA(chain(4, 8, 3), rank=2))
    adapted.load_state_dict(bare.state_dict())
    assert torch.equal(output(adapted), output(bare))
    own = lively(adapted).state_dict()
    twin = LoRA(chain(4, 8, 3), rank=2)
    twin.load_state_dict(own)
    assert torch.equal(output(twin), output(adapted))
    half = {n: t for n, t in own.items() if n != "0.lora_A"}
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.lora_A"):
        twin.load_state_dict(half)


def test_merged_it_is_a_plain_component_with_the_same_outputs():
    adapted = lively(LoRA(SafeModule(chain(4, 8, 3)), rank=2, alpha=4.0))
    before = copy.deepcopy(adapted.state_dict())
    merged, bare = adapted.merged(), chain(4, 8, 3)
    assert type(merged) is SafeModule
    assert [type(m) for m in merged.modules()][1:] == [nn.Linear, nn.Linear]
    torch.testing.assert_close(output(merged), output(adapted))
    bare.load_state_dict(adapted.merged_state_dict())
    torch.testing.assert_close(output(bare), output(adapted))
    assert list(before) == list(adapted.state_dict()), "the wrapper itself is as it was"


@pytest.mark.parametrize(
    ("target", "adapted"),
    [("*", ["0", "1.0", "1.1"]), ("1.*", ["1.0", "1.1"]), (["0", "1.1"], ["0", "1.1"]), ("[0]", ["0"])],
)
def test_patterns_choose_the_layers(target, adapted):
    inner = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)))
    wrapped = LoRA(TensorComponent(inner, ["input"], ["output"]), rank=1, target=target)
    assert [n for n, m in wrapped.named_modules() if type(m) is LoRALinear] == adapted
    assert {n for n, p in wrapped.named_parameters() if p.requires_grad} == {
        f"{n}.lora_{side}" for n in adapted for side in "AB"
    }


def test_a_component_that_is_itself_a_layer_is_adapted():
    wrapped = lively(LoRA(TensorComponent(nn.Linear(4, 3), ["input"], ["output"]), rank=1))
    assert list(wrapped.state_dict()) == ["weight", "bias", "lora_A", "lora_B"]
    torch.testing.assert_close(output(wrapped.merged()), output(wrapped))


def test_what_matches_nothing_is_refused_with_what_there_is():
    module = chain(4, 8, 3)
    with pytest.raises(ValueError, match="no linear layer matches 'head'; there are: '0', '1'"):
        LoRA(module, target="head")
    assert all(p.requires_grad for p in module.parameters()), "a refusal changes nothing"
    with pytest.raises(ValueError, match="adapted already"):
        LoRA(LoRA(module))
    with pytest.raises(ValueError, match="rank=0"):
        LoRA(chain(4, 3), rank=0)


@pytest.mark.parametrize("copier", COPIERS)
def test_a_copy_is_adapted_and_independent(copier):
    adapted = lively(LoRA(chain(4, 3), rank=2))
    twin = COPIERS[copier](adapted)
    expected = output(adapted)
    assert torch.equal(output(twin), expected)
    with torch.no_grad():
        twin.module.module[0].lora_B.zero_()
    assert torch.equal(output(adapted), expected)


def test_compiled_code_notices_that_its_layers_were_adapted():
    """Also where nothing was put into the policy: the layers are its own."""
    policy = policy_of().eval()
    obs = observations()
    before = policy(obs)[0]
    adapted = lively(LoRA(policy.components["trunk"], rank=2))
    after = policy(obs)[0]
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, policy.slow("forward", obs)[0])
    assert "lora" in policy.code
    adapted.module.module[0].merge()
    torch.testing.assert_close(policy(obs)[0], after)
    assert "lora" not in policy.code


def test_in_a_policy_deltas_are_inlined_and_follow_the_seed():
    one, same, other = (policy_of([{"type": "lora", "rank": 2}], seed=seed) for seed in (0, 0, 1))
    a, b, c = (policy.state_dict()["components.trunk.0.lora_A"] for policy in (one, same, other))
    assert torch.equal(a, b) and not torch.equal(a, c)
    bare = policy_of(seed=0)
    assert torch.equal(one(observations())[0], bare(observations())[0])
    assert "lora_A" in one.code
    assert one.plan.parameter_count == sum(p.numel() for p in one.parameters())
    assert one.plan.node("trunk").trainable == sum(p.numel() for n, p in one.named_parameters() if "lora" in n)


def test_compiled_whole_it_is_the_same():
    torch._dynamo.reset()
    adapted = lively(LoRA(chain(4, 8, 3), rank=2))
    compiled = torch.compile(output, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(adapted), output(adapted))


def test_an_adapted_layer_takes_its_input_by_name_as_before():
    module = chain(4, 3)
    lively(LoRA(module, rank=2))
    layer = module.module[0]
    assert isinstance(layer, LoRALinear) and torch.equal(layer(input=X), layer(X))
