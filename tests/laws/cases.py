"""For every registered type an input that it takes and options it needs: what the laws are run over.

Activations and norms are probed as components, in a copy of the registry, so that the same laws cover them.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import pytest
import torch
from torch import Tensor, nn

import policysmith
from policysmith.errors import MissingExtraError
from policysmith.graph import GraphModel, TensorSpec
from policysmith.graph.plan import Plan
from policysmith.registry import Infer, Registry, default_registry
from policysmith.testing import Case, Subject


def import_all_rooms() -> dict[str, str]:
    """Import every module of the package, so that every type is registered; module → error for those that fail."""
    failed: dict[str, str] = {}
    for module in pkgutil.walk_packages(policysmith.__path__, "policysmith."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except MissingExtraError:
            continue
        except Exception as error:
            failed[module.name] = f"{type(error).__name__}: {error}"
    return failed


IMPORT_FAILURES = import_all_rooms()


VECTOR = TensorSpec((6,))
SEQUENCE = TensorSpec((4, 10))
IMAGE = TensorSpec((4, 8, 8))
VOLUME = TensorSpec((2, 5, 5, 5))
CATEGORY = TensorSpec((), torch.int64, (5,))
TASK = TensorSpec((), torch.int64, (2,))
CATEGORIES = TensorSpec((3,), torch.int64, (5, 2, 3))
TWO_HEADS = {"type": "mha", "heads": 2}

NATIVE_GRAPH = {
    "components": {
        "body": {"type": "mlp", "in_keys": "x", "hidden": [5], "dropout": 0.5},
        "both": {"type": "join", "in_keys": ["body", "x"]},
        "out": {"type": "nn.Linear", "in_keys": "both", "out_features": 3},
    }
}
V1_GRAPH = {
    "schema_version": 1,
    "model": {
        "graph": {
            "inputs": ["x", "goal"],
            "modules": {
                "trunk": {"_type_": "nn.LazyLinear", "out_features": 4},
                "act": {"_type_": "nn.ReLU"},
                "end": {"_type_": "nn.Linear", "in_features": 7, "out_features": 2},
            },
            "nodes": [
                {"name": "h", "call": "module:trunk", "args": ["$x"]},
                {"name": "a", "call": "module:act", "args": ["$h"]},
                {"name": "both", "call": "op:cat", "args": [["$a", "$goal"]], "kwargs": {"dim": 1}},
                {"name": "y", "call": "module:end", "args": ["$both"]},
            ],
            "outputs": {"features": "$a", "result": "$y"},
        }
    },
}


def one(spec: TensorSpec, **options: Any) -> Case:
    """A type with one input."""
    return Case((spec,), options)


ONE_KEY = "the first step of an episode sees one key, whose weight is 1 whatever the scores"
KEYS_OF_TWO_LAYERS = {f"blocks.{i}.attention.{n}.weight": ONE_KEY for i in (0, 1) for n in ("query", "key")}


def forgets(*names: str) -> dict[str, str]:
    """Weights that get no gradient from the first step of an episode."""
    return dict.fromkeys(names, "the first step of an episode has nothing to remember")


CASES: dict[str, tuple[Case, ...]] = {
    "action_embedding": (
        Case((CATEGORY,), {"num_embeddings": 7, "dim": 3}, {"num_actions": 7}),
        Case(
            (TensorSpec((5, 4, 2), torch.uint8),),
            {"num_embeddings": 9, "dim": 4, "rows": [3, 1, 8]},
            {"num_actions": 3},
        ),
    ),
    "action_head": (
        Case((VECTOR,), {}, {"action_layout": ((5, 0),)}),
        Case((VECTOR, IMAGE), {"hidden": [8]}, {"action_layout": ((2, 2),)}),
        Case((VECTOR,), {"initial_std": 0.5}, {"action_layout": ((2, 2), (3, 0), (1, 1))}),
    ),
    "flow_head": (
        Case((VECTOR,), {"hidden": [8], "steps": 2}, {"action_layout": ((2, 2),)}),
        Case((VECTOR, IMAGE), {"hidden": [8], "horizon": 3, "steps": 1}, {"action_layout": ((1, 1),)}),
    ),
    "bilinear": (Case((VECTOR, TensorSpec((4,))), {"out_features": 5}),),
    "bilinear_action_head": (
        Case((VECTOR, TensorSpec((5, 3))), {}, {"action_layout": ((5, 0),)}),
        Case((VECTOR, TensorSpec((5, 3))), {"forms": 4, "hidden": 8}, {"action_layout": ((2, 0), (3, 0))}),
    ),
    "board_policy_head": (
        Case((IMAGE,), {}, {"action_layout": ((5, 0),)}),
        Case((IMAGE,), {}, {"action_layout": ((2, 2), (3, 0))}),
    ),
    "board_value_head": (one(IMAGE),),
    "centre_pixel": (one(TensorSpec((4, 3, 5))),),
    "channels_first": (one(TensorSpec((8, 9, 3), torch.uint8)), one(TensorSpec((8, 9, 3)))),
    "op": (one(VECTOR, op="identity"), Case((VECTOR, VECTOR), {"op": "add"}), Case((IMAGE, IMAGE), {"op": "mul"})),
    "concat": (Case((VECTOR, SEQUENCE, TensorSpec(()))), one(VECTOR)),
    "conv": (
        one(IMAGE, channels=[5, 6], features=7),
        one(IMAGE, channels=[5, 6], kernel_size=[3, 2], stride=[2, 1], padding=[1, 0], norm="batch", flatten=False),
        one(IMAGE, channels=[4], norm={"type": "group", "groups": 2}),
    ),
    "divide": (one(TensorSpec((3,)), by=[1.0, 2.0, 255.0]), one(IMAGE, by=[1.0, 2.0, 4.0, 8.0])),
    "difference": (Case((VECTOR, VECTOR)), Case((IMAGE, IMAGE))),
    "embedding": (one(CATEGORY, dim=4), one(CATEGORIES, dim=4)),
    "encode_codes": (
        one(TensorSpec((4, 5, 3), torch.uint8), sizes=[3, 2, 4]),
        one(TensorSpec((2, 4, 5, 2), torch.uint8), sizes=[3, 2], layout="thwc"),
    ),
    "encode_image": (
        one(TensorSpec((4, 8, 9, 3), torch.uint8), layout="thwc"),
        one(TensorSpec((4, 3, 8, 9)), layout="tchw", scale=1.0),
        one(TensorSpec((4, 8, 9)), layout="thw"),
        one(TensorSpec((8, 9, 3), torch.uint8)),
        one(TensorSpec((3, 8, 9), torch.uint8), layout="chw"),
        one(TensorSpec((8, 9)), layout="hw", scale=2.0),
    ),
    "expand": (one(VECTOR, size=3), one(IMAGE, size=2, axis=2), one(SEQUENCE, size=2, axis=-1)),
    "expert_action_head": (
        Case((TASK, VECTOR), {"layer_width": 8, "num_layers": 2}, {"action_layout": ((5, 0),)}),
        Case((TASK, VECTOR), {"layer_width": 8, "activation": "relu"}, {"action_layout": ((4, 0), (3, 0))}),
    ),
    "expert_value_head": (Case((TASK, VECTOR), {"layer_width": 8, "num_layers": 3}),),
    "factory_model": (
        one(
            VECTOR,
            factory="policy_constructor",
            network="main",
            config={"config": {**NATIVE_GRAPH, "inputs": {"x": [6]}}},
        ),
    ),
    "film": (Case((VECTOR, TensorSpec((3,)))), Case((IMAGE, TensorSpec((3,))))),
    "flatten": (one(IMAGE), one(VECTOR), one(TensorSpec(()))),
    "fold": (one(SEQUENCE), one(IMAGE, axis=2, into=0), one(IMAGE, axis=1, into=0)),
    "global_pool": (one(IMAGE), one(TensorSpec((3, 1, 5)))),
    "graph_model": (
        one(VECTOR, config=NATIVE_GRAPH),
        Case((VECTOR, TensorSpec((3,))), {"config": V1_GRAPH, "in_keys": {"x": "in0", "goal": "in1"}}, outputs=2),
    ),
    "gru": (
        replace(one(VECTOR, hidden_size=5), without_gradient=forgets("weight_hh_l0")),
        Case(
            (VECTOR, IMAGE),
            {"hidden_size": 4, "num_layers": 2, "bias": False, "learned_initial_state": True},
            without_gradient=forgets("weight_hh_l0", "weight_hh_l1"),
        ),
    ),
    "gtrxl": (replace(one(VECTOR, dim=8, context=3, attention=TWO_HEADS), without_gradient=KEYS_OF_TWO_LAYERS),),
    "impala": (one(IMAGE, channels=[4, 5], features=6), one(IMAGE, channels=[4], width=2, features=None)),
    "join": (
        Case((VECTOR, TensorSpec((3,)))),
        Case((IMAGE, TensorSpec((2, 8, 8))), {"axis": 0}),
    ),
    "lstm": (
        replace(one(VECTOR, hidden_size=5), without_gradient=forgets("weight_hh_l0")),
        Case(
            (VECTOR, IMAGE),
            {"hidden_size": 4, "num_layers": 2, "forget_bias": 1.0, "learned_initial_state": True},
            without_gradient=forgets("weight_hh_l0", "weight_hh_l1"),
        ),
        replace(
            one(VECTOR, hidden_size=4, num_layers=2, dropout=0.5, bias=False),
            without_gradient=forgets("weight_hh_l0", "weight_hh_l1"),
        ),
    ),
    "mean": (Case((VECTOR, VECTOR, VECTOR)), Case((IMAGE, IMAGE))),
    "mingru": (
        one(VECTOR, hidden_size=5),
        Case((VECTOR, IMAGE), {"hidden_size": 4, "num_layers": 2, "forget_bias": 1.0, "learned_initial_state": True}),
    ),
    "mlp": (
        one(VECTOR, hidden=[8, 7]),
        Case((VECTOR, IMAGE), {"hidden": [8], "norm": "layer", "activation": "relu", "out_features": 3}),
        one(VECTOR, hidden=[8, 8], dropout=0.5, norm="batch", activation={"type": "elu", "alpha": 0.5}),
        one(TensorSpec(()), hidden=[], out_features=2),
    ),
    "nature": (one(TensorSpec((1, 36, 37)), features=9),),
    "nn.AdaptiveAvgPool1d": (one(SEQUENCE, output_size=3),),
    "nn.AdaptiveAvgPool2d": (one(IMAGE, output_size=3), one(IMAGE, output_size=[2, 3])),
    "nn.AdaptiveMaxPool2d": (one(IMAGE, output_size=3),),
    "nn.AlphaDropout": (one(VECTOR),),
    "nn.AvgPool1d": (one(SEQUENCE, kernel_size=2),),
    "nn.AvgPool2d": (one(IMAGE, kernel_size=2, stride=1),),
    "nn.BatchNorm1d": (one(VECTOR), one(SEQUENCE)),
    "nn.BatchNorm2d": (one(IMAGE),),
    "nn.CELU": (one(VECTOR),),
    "nn.Conv1d": (one(SEQUENCE, out_channels=5, kernel_size=3),),
    "nn.Conv2d": (
        one(IMAGE, out_channels=6, kernel_size=3, stride=2, groups=2),
        one(IMAGE, out_channels=6, kernel_size=[3, 2]),
    ),
    "nn.Conv3d": (one(VOLUME, out_channels=3, kernel_size=2),),
    "nn.ConvTranspose2d": (one(IMAGE, out_channels=3, kernel_size=2, stride=2),),
    "nn.Dropout": (one(VECTOR),),
    "nn.Dropout2d": (one(IMAGE),),
    "nn.ELU": (one(VECTOR),),
    "nn.Embedding": (one(CATEGORY, embedding_dim=4), one(CATEGORIES, embedding_dim=4)),
    "nn.Flatten": (one(IMAGE),),
    "nn.GELU": (one(VECTOR),),
    "nn.GroupNorm": (one(IMAGE, num_groups=2),),
    "nn.Hardswish": (one(VECTOR),),
    "nn.Identity": (one(VECTOR),),
    "nn.InstanceNorm2d": (one(IMAGE, affine=True), one(IMAGE)),
    "nn.LayerNorm": (one(VECTOR),),
    "nn.LeakyReLU": (one(VECTOR),),
    "nn.Linear": (one(VECTOR, out_features=3), one(SEQUENCE, out_features=3, bias=False)),
    "nn.LogSigmoid": (one(VECTOR),),
    "nn.MaxPool1d": (one(SEQUENCE, kernel_size=2),),
    "nn.MaxPool2d": (one(IMAGE, kernel_size=2), one(IMAGE, kernel_size=[2, 1], stride=[1, 2])),
    "nn.Mish": (one(VECTOR),),
    "nn.PReLU": (one(VECTOR), one(IMAGE, num_parameters=4)),
    "nn.PixelShuffle": (one(IMAGE, upscale_factor=2),),
    "nn.RMSNorm": (one(VECTOR),),
    "nn.ReLU": (one(VECTOR),),
    "nn.ReLU6": (one(VECTOR),),
    "nn.SELU": (one(VECTOR),),
    "nn.SiLU": (one(VECTOR),),
    "nn.Sigmoid": (one(VECTOR),),
    "nn.Softmax": (one(VECTOR, dim=-1),),
    "nn.Softplus": (one(VECTOR),),
    "nn.Softsign": (one(VECTOR),),
    "nn.Tanh": (one(VECTOR),),
    "nn.Unflatten": (one(VECTOR, dim=1, unflattened_size=[2, 3]),),
    "normalizer": (one(VECTOR), one(IMAGE, clip=0.5), one(TensorSpec(()))),
    "one_hot": (one(CATEGORY), one(CATEGORIES)),
    "outcome_head": (one(VECTOR, hidden=8), Case((VECTOR, IMAGE), {"hidden": 8})),
    "outcome_value": (
        Case((TensorSpec((3,)), TensorSpec((1,))), {"score_blend": 0.25}),
        Case((TensorSpec((3,)), TensorSpec((1,))), {"score_blend": 0.75}),
    ),
    "policy_output": (
        Case((TensorSpec((5,)),), {}, {"action_layout": ((5, 0),)}),
        Case((TensorSpec((4,)),), {}, {"action_layout": ((2, 2),)}),
    ),
    "residual_mlp": (one(VECTOR, width=8, layers=3), one(VECTOR, width=8, norm="layer", dropout=0.5)),
    "resnet_tower": (
        one(IMAGE, depth=2, width=6, se_ratio=0.5),
        one(IMAGE, depth=1, width=6, dropout=0.5),
        one(IMAGE, depth=0, width=6, se_ratio=0.0),
    ),
    "score_head": (one(VECTOR, hidden=8), Case((VECTOR, IMAGE), {"hidden": 8})),
    "se_resnet_tower": (
        one(IMAGE, num_blocks=2, channels=6, se_reduction=2, global_pool_channels=5),
        one(IMAGE, num_blocks=1, channels=5, se_reduction=5, global_pool_channels=4),
    ),
    "slice": (one(VECTOR, start=1, stop=4), one(IMAGE, start=2, axis=0)),
    "spatial_policy_head": (
        Case((IMAGE,), {"channels": 5}, {"num_actions": 128}),
        Case((IMAGE,), {"channels": 3}, {"num_actions": 64}),
    ),
    "sequence_extractor": (
        one(SEQUENCE, extractor={"type": "basic", "hidden": 6, "dim": 5, "norm": "batch"}),
        one(SEQUENCE, extractor={"type": "resnet", "hidden": 6, "dropout": 0.5}, causal=True),
        one(SEQUENCE, extractor={"type": "inception", "hidden": 7, "layers": 1}),
    ),
    "sequence_pool": (
        one(SEQUENCE),
        one(SEQUENCE, kind="mean"),
        one(SEQUENCE, kind="attention", heads=2),
        Case((SEQUENCE, TensorSpec((4,), torch.int8))),
    ),
    "sum": (Case((VECTOR, VECTOR, VECTOR)), one(VECTOR)),
    "swish_residual_mlp": (one(VECTOR), one(VECTOR, blocks=2)),
    "to_float": (one(TensorSpec((3,), torch.int8)), one(TensorSpec((3,), torch.int64), scale=2.0), one(VECTOR)),
    "transformer_memory": (
        replace(one(VECTOR, dim=8, context=3, attention=TWO_HEADS), without_gradient=KEYS_OF_TWO_LAYERS),
        replace(
            one(VECTOR, context=2, layers=1, attention={"type": "mla", "heads": 1}, position="time", residual="gated"),
            without_gradient={f"blocks.0.attention.{n}.weight": ONE_KEY for n in ("query.up", "key")},
        ),
    ),
    "transformer_stack": (
        one(SEQUENCE, dim=8, attention=TWO_HEADS),
        one(SEQUENCE, layers=1, attention=TWO_HEADS, architecture="encoder_only", norm="batch", position="learned"),
        one(
            SEQUENCE,
            dim=8,
            layers=1,
            attention=TWO_HEADS,
            architecture="encoder_decoder",
            queries=3,
            norm="rms",
            residual="layerscale",
            placement="sandwich",
            block_norm=True,
            dropout=0.5,
        ),
        one(
            SEQUENCE,
            dim=8,
            layers=1,
            attention=TWO_HEADS,
            architecture="encoder_decoder",
            decoder_input="shifted",
            causal=True,
            residual="gtrxl",
            placement="post",
        ),
        Case(
            (SEQUENCE, TensorSpec((3, 5))),
            {"attention": TWO_HEADS, "architecture": "encoder_decoder", "decoder_input": "target", "dim": 6},
        ),
    ),
    "value_head": (one(VECTOR), Case((VECTOR, IMAGE), {"hidden": [8]})),
    "value_output": (one(TensorSpec((1,))), one(TensorSpec(()))),
    "window_memory": (
        one(SEQUENCE, memory={"type": "transformer_memory", "dim": 8, "context": 2, "attention": TWO_HEADS}),
    ),
}


def _build_activation(name: str) -> nn.Module:
    return default_registry.decode("activation", name).build()


def _build_norm(name: str, spatial: int, features: int) -> nn.Module:
    return default_registry.decode("norm", name).build(features=features, spatial=spatial)


def _build_feedforward(options: Mapping[str, Any], features: int) -> nn.Module:
    return default_registry.decode("feedforward", options).build(dim=features)


def _probe(
    registry: Registry, key: str, target: Any, traits: Mapping[str, Any], *cases: Case, features: str = "channels"
) -> None:
    """Register a part of another slot as a component, so that the laws of components are run over it."""
    target.__annotations__ = {}
    registry.register(key, annotations={"features": Annotated[int, Infer(features)]}, **traits)(target)
    CASES[key] = cases


def _probes() -> Registry:
    """The default registry with every activation and norm as a component beside its own types."""
    registry = default_registry.copy()
    for name in default_registry.names("activation"):
        traits = default_registry.entry("activation", name).traits
        _probe(registry, f"activation:{name}", partial(_build_activation, name), traits, one(VECTOR), one(IMAGE))
    for name in default_registry.names("norm"):
        traits = default_registry.entry("norm", name).traits
        for spatial, spec in ((0, VECTOR), (2, IMAGE)):
            if spatial or name != "instance":  # which averages over time or space
                _probe(registry, f"norm:{name}:{spatial}", partial(_build_norm, name, spatial), traits, one(spec))
        of_sequence = partial(_build_norm, name, 0)
        _probe(registry, f"norm:{name}:sequence", of_sequence, traits, one(SEQUENCE), features="features")
    feedforwards = {f"feedforward:{name}": {"type": name} for name in default_registry.names("feedforward")}
    feedforwards["feedforward:moe"] |= {"experts": 2}  # both in use: a law counts on every weight
    feedforwards["router:soft"] = {"type": "moe", "experts": 3, "router": "soft"}
    for key, options in feedforwards.items():
        of_rows = partial(_build_feedforward, options)
        _probe(registry, key, of_rows, {}, one(VECTOR), one(SEQUENCE), features="features")
    return registry


REGISTRY = _probes()
NAMES = REGISTRY.names("component")
IDS = [f"{name}-{i}" if i else name for name in NAMES for i in range(len(CASES.get(name, ((),))))]

every_type = pytest.mark.parametrize("name", NAMES)
every_case = pytest.mark.parametrize("case_id", IDS)


def case_of(case_id: str) -> tuple[str, Case]:
    """The type's name and the case of an id; fails with what to add for a type without a case."""
    name, _, number = case_id.rpartition("-") if case_id not in NAMES else (case_id, "", "0")
    if name not in CASES:
        options = inspect.signature(default_registry.entry("component", name).target)
        pytest.fail(
            f"component {name!r} has no case: add CASES[{name!r}] = (one(VECTOR, …),) in tests/laws/cases.py "
            f"with an input that it takes; its signature is {options}"
        )
    return name, CASES[name][int(number)]


def subject_of(case_id: str) -> Subject:
    """What a law is held against."""
    name, case = case_of(case_id)
    return Subject(name, case, REGISTRY)


def input_names(case: Case) -> list[str]:
    return [f"in{i}" for i in range(len(case.inputs))]


def config_of(name: str, case: Case) -> dict[str, Any]:
    """The components of a graph that holds this one type."""
    return Subject(name, case, REGISTRY).config


def plan_of(case_id: str, extra: Mapping[str, Any] | None = None) -> Plan:
    """The plan of a case; `extra` components come first."""
    return subject_of(case_id).plan(extra)


def model_of(case_id: str, seed: int | None = 0) -> GraphModel:
    """A case as a model of one component."""
    return subject_of(case_id).model(seed)


def tensors_of(case_id: str, batch: int = 3, seed: int = 1) -> list[Tensor]:
    """Random inputs (batch, *event): normal, or whole numbers in range."""
    return subject_of(case_id).tensors(batch, seed)


def entries(*slots: str) -> Iterator[Any]:
    """Every entry of the slots in the default registry, as pytest parameters."""
    for slot in slots:
        for name in default_registry.names(slot):
            yield pytest.param(slot, name, id=f"{slot}:{name}")
