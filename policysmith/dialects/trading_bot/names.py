"""The flat configuration of the original transformer factory, and what it says in our own words.

In: options by the original's names. Out: a nested model as any file could state it, and its policy for a window of
`window_size` steps of `n_features` numbers and `action_dim` actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from policysmith.config.experiment import decode_experiment
from policysmith.config.load import load
from policysmith.dialects.trading_bot.model_config_checks import problems_of
from policysmith.errors import ConfigError
from policysmith.parts.attention import MultiHeadLatentAttention as MultiLatentAttention
from policysmith.policy.actor_critic import ActorCritic
from policysmith.policy.factory import build_policy
from policysmith.registry import Registry, default_registry
from policysmith.types import Count, Dropout, NonNegativeInt, Positive

__all__ = ["ModelConfig", "MultiLatentAttention", "build_from_config"]


@dataclass(frozen=True)
class ModelConfig:
    """A transformer (or LSTM) actor-critic over windows, in the original factory's options and defaults.

    Everything is checked at once: `ConfigError` lists unknown and ill-typed options, wrong combinations, and options
    set to other than their default that play no part. What differs from the original, on purpose:

    `causal` (its behaviour, here by name): no step of the window sees a later one, convolutions included. An
    `encoder_decoder` reads its whole source by one learned query, or with `decoder_input` the source shifted by one
    step, and only then `causal` applies to it. `attention_type` `mla` is DeepSeek's; the original's is
    `latent_queries`, which needs causal=False. `n_groups` are the heads of keys and values of `gqa`. `group_norm` has
    a group a head, `batch_norm` is consented to. Of two flags, `use_skip_connections` asks for the `resnet` extractor.
    `temperature` divides the logits wherever they are used: acting and evaluating agree.
    """

    core_model_type: Literal["transformer", "lstm"] = "transformer"
    architecture: Literal["encoder_only", "encoder_decoder", "decoder_only"] = "encoder_only"
    embedding_dim: Count = 256
    n_heads: Count = 8
    window_size: Count = 100
    dropout: Dropout = 0.1
    n_encoder_layers: Count = 4
    n_decoder_layers: Count = 4
    attention_type: Literal["mha", "mqa", "mqn", "gqa", "mla", "pyramid", "pyr", "latent_queries"] = "mha"
    n_latents: Count | None = None
    n_groups: Count | None = None
    ffn_type: Literal["standard", "moe"] = "standard"
    ffn_dim: Count | None = None
    n_experts: Count | None = None
    top_k: Count | None = None
    norm_type: Literal["layer_norm", "rms_norm", "batch_norm", "instance_norm", "group_norm"] = "layer_norm"
    residual_scale: Positive = 1.0
    use_gated_residual: bool = False
    use_final_norm: bool = False
    feature_extractor_type: Literal["basic", "resnet", "inception"] = "basic"
    feature_extractor_dim: Count = 128
    feature_extractor_layers: Count = 2
    feature_dropout: Dropout = 0.0
    use_skip_connections: bool = False
    use_layer_norm: bool = False
    use_instance_norm: bool = False
    head_hidden_dim: Count = 128
    head_n_layers: NonNegativeInt = 2
    head_use_layer_norm: bool = False
    head_use_residual: bool = False
    head_dropout: Dropout | None = None
    action_dim: Count = 3
    n_features: Count = 59
    temperature: Positive = 0.5
    lstm_hidden_dim: Count = 128
    lstm_num_layers: Count = 2
    lstm_dropout: Dropout = 0.0
    causal: bool = True
    decoder_input: Literal["queries", "shifted"] = "queries"

    def __new__(cls, *args: Any, **values: Any) -> ModelConfig:
        """Checks the arguments before they are taken; a copy or an unpickled one was checked when it was made."""
        names = [field.name for field in fields(cls)]
        problems = problems_of(cls, {**dict(zip(names, args, strict=False)), **values}) if args or values else []
        if problems:
            raise ConfigError(problems)
        return super().__new__(cls)

    @property
    def model(self) -> dict[str, Any]:
        """The same model as a configuration states it: nested, `{type: …}`."""
        return _lstm(self) if self.core_model_type == "lstm" else _transformer(self)

    @property
    def observation_space(self) -> spaces.Box:
        """A window of steps, each of so many numbers."""
        return spaces.Box(-np.inf, np.inf, (self.window_size, self.n_features), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """One of so many actions."""
        return spaces.Discrete(self.action_dim)


def build_from_config(config: ModelConfig | Mapping[str, Any], registry: Registry | None = None) -> ActorCritic:
    """The policy of a configuration, or of a mapping with its names; weights from torch's global generator.

    It knows its nested configuration, so it can be stored. Raises `ConfigError` with every problem.
    """
    registry = registry or default_registry
    config = config if isinstance(config, ModelConfig) else ModelConfig(**config)
    experiment = decode_experiment(load({"seed": None, "model": config.model}), registry)
    space, actions = config.observation_space, config.action_space
    return build_policy(experiment["model"], space, actions, registry, config=experiment.resolved())


def _transformer(c: ModelConfig) -> dict[str, Any]:
    both = c.architecture == "encoder_decoder"
    queries = both and c.decoder_input == "queries"
    return {
        "type": "transformer",
        "dim": c.embedding_dim,
        "architecture": c.architecture,
        "layers": c.n_decoder_layers if c.architecture == "decoder_only" else c.n_encoder_layers,
        "decoder_layers": c.n_decoder_layers if both else None,
        "decoder_input": c.decoder_input if both else None,
        "queries": 1 if queries else None,
        "causal": None if queries else c.causal,
        "attention": _attention(c),
        "feedforward": _feedforward(c),
        "norm": _norm(c),
        "position": {"type": "time", "length": c.window_size},
        "residual": {"type": "gated" if c.use_gated_residual else "add", "scale": c.residual_scale},
        "dropout": c.dropout,
        "block_norm": c.use_final_norm,
        "extractor": _extractor(c, c.embedding_dim),
        "pooling": "last",
        "head": _head(c),
        "temperature": c.temperature,
        "batch_coupled": True,  # the original's convolutions are followed by batch normalisation
    }


def _lstm(c: ModelConfig) -> dict[str, Any]:
    width, memory = c.lstm_hidden_dim, {"num_layers": c.lstm_num_layers, "dropout": c.lstm_dropout}
    head = _head(c)
    before = {} if head is None else {name: {**head, "in_keys": "pooling"} for name in ("actor", "critic")}
    actor, critic = before or ("pooling", "pooling")
    components = {
        "extractor": {
            "type": "sequence_extractor", "in_keys": "observation", "extractor": _extractor(c, width),
            "causal": c.causal,
        },
        "memory": {
            "type": "window_memory", "in_keys": "extractor",
            "memory": {"type": "lstm", "hidden_size": width, **memory},
        },
        "pooling": {"type": "sequence_pool", "in_keys": "memory", "kind": "last"},
        **before,
        "policy": {"type": "action_head", "in_keys": actor, "temperature": c.temperature},
        "state_value": {"type": "value_head", "in_keys": critic},
    }  # fmt: skip
    return {"type": "graph", "components": components, "batch_coupled": True}


def _attention(c: ModelConfig) -> dict[str, Any]:
    name = {"mqn": "mqa", "pyr": "pyramid"}.get(c.attention_type, c.attention_type)
    own: dict[str, dict[str, Any]] = {
        "gqa": {"kv_heads": c.n_groups},
        "latent_queries": {"n_latents": c.n_latents or 16},
        "pyramid": {"bias": True},  # as the original has it
    }
    return {"type": name, "heads": c.n_heads, "dropout": c.dropout, **own.get(name, {})}


def _feedforward(c: ModelConfig) -> dict[str, Any]:
    dense = {"type": "mlp", "hidden": c.ffn_dim, "dropout": c.dropout}
    if c.ffn_type == "standard":
        return dense
    return {"type": "moe", "experts": c.n_experts, "top_k": c.top_k, "expert": dense}


def _norm(c: ModelConfig) -> dict[str, Any]:
    name = c.norm_type.removesuffix("_norm")
    return {"type": name, **({"groups": c.n_heads} if name == "group" else {})}


def _extractor(c: ModelConfig, dim: int) -> dict[str, Any]:
    kind = "resnet" if c.use_skip_connections else c.feature_extractor_type
    norm = "layer" if c.use_layer_norm else "instance" if c.use_instance_norm else "batch"
    sizes = {"dim": dim, "hidden": c.feature_extractor_dim, "layers": c.feature_extractor_layers}
    return {"type": kind, **sizes, "norm": norm, "dropout": c.feature_dropout}


def _head(c: ModelConfig) -> dict[str, Any] | None:
    """The layers of a head before its last; None: it is a single linear layer."""
    if not c.head_n_layers:
        return None
    shape: dict[str, Any] = {"type": "mlp", "hidden": [c.head_hidden_dim] * c.head_n_layers}
    if c.head_use_residual:
        shape = {"type": "residual_mlp", "width": c.head_hidden_dim, "layers": c.head_n_layers}
    norm = "layer" if c.head_use_layer_norm else None
    dropout = c.dropout if c.head_dropout is None else c.head_dropout
    return {**shape, "activation": "gelu", "norm": norm, "dropout": dropout}
