"""What can be wrong with a flat model configuration: names, types, and options that do not go together.

In: the configuration's class and the values given. Out: problems, each by the option's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from pydantic import ValidationError

from policysmith.config.options import OptionSchema, failures
from policysmith.errors import Problem

__all__ = ["problems_of"]

Values = Mapping[str, Any]

# Options of the original that are gone → what to use.
GONE = {"n_layers": "use n_encoder_layers / n_decoder_layers"}
# Option → (the option that decides, the values with which it plays a part).
BELONGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "n_latents": ("attention_type", ("latent_queries",)),
    "n_groups": ("attention_type", ("gqa",)),
    "n_experts": ("ffn_type", ("moe",)),
    "top_k": ("ffn_type", ("moe",)),
    "n_encoder_layers": ("architecture", ("encoder_only", "encoder_decoder")),
    "n_decoder_layers": ("architecture", ("decoder_only", "encoder_decoder")),
    "decoder_input": ("architecture", ("encoder_decoder",)),
    **dict.fromkeys(("lstm_hidden_dim", "lstm_num_layers", "lstm_dropout"), ("core_model_type", ("lstm",))),
}
OF_TRANSFORMER = (
    "architecture", "embedding_dim", "n_heads", "n_encoder_layers", "n_decoder_layers", "attention_type", "n_latents",
    "n_groups", "ffn_type", "ffn_dim", "n_experts", "top_k", "norm_type", "residual_scale", "use_gated_residual",
    "use_final_norm", "decoder_input",
)  # fmt: skip
OF_HEAD = ("head_hidden_dim", "head_use_layer_norm", "head_use_residual", "head_dropout")


def problems_of(kind: type, given: Values) -> list[Problem]:
    """Everything wrong with the values `given` to the configuration class `kind`."""
    found = list(_ill_typed(kind, given))
    defaults = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    bad = {problem.path.split(".")[0] for problem in found}
    values = {name: value for name, value in {**defaults, **given}.items() if name not in bad}
    changed = [name for name in given if name in values and values[name] != defaults[name]]
    return [*found, *_irrelevant(values, changed), *_combinations(values)]


@cache
def _schema(kind: type) -> OptionSchema:
    return OptionSchema(kind, kind.__name__)


def _ill_typed(kind: type, given: Values) -> Iterator[Problem]:
    try:
        _schema(kind).decode(given, {})
    except ValidationError as error:
        for path, message in failures(error):
            name = str(path[0])
            if name == "architecture" and given[name] == "moe":
                message = "'moe' is no architecture: use ffn_type: moe"
            yield Problem(".".join(map(str, path)), GONE.get(name, message))


def _irrelevant(values: Values, changed: list[str]) -> Iterator[Problem]:
    """Options set to other than their default that play no part; judged where what decides it is itself right."""
    for name in changed:
        decisive, wanted = BELONGS.get(name, ("", ()))
        if name in OF_TRANSFORMER and values.get("core_model_type") == "lstm":
            decisive, wanted = "core_model_type", ("transformer",)
        if decisive in values and values[decisive] not in wanted:
            hint = " (learned latents as queries, which the original called mla)" if name == "n_latents" else ""
            text = f"plays no part with {decisive}: {values[decisive]}; it belongs to {' or '.join(wanted)}{hint}"
            yield Problem(name, f"{values[name]!r} {text}")
        if name in OF_HEAD and values.get("head_n_layers") == 0:
            yield Problem(name, f"{values[name]!r} plays no part with head_n_layers: 0; it belongs to 1 or more")


def _combinations(v: Values) -> Iterator[Problem]:
    rules = (*(TRANSFORMER if v.get("core_model_type") == "transformer" else ()), *ALWAYS)
    for name, is_wrong, message in rules:
        with suppress(KeyError):  # a value that the rule is about is itself wrong, which is reported
            if is_wrong(v):
                yield Problem(name, message.format(**v))


Rule = tuple[str, Callable[[Values], bool], str]

TRANSFORMER: tuple[Rule, ...] = (
    ("embedding_dim", lambda v: v["embedding_dim"] % v["n_heads"] != 0,
     "{embedding_dim} is not a multiple of n_heads={n_heads}"),
    ("n_groups", lambda v: v["attention_type"] == "gqa" and v["n_groups"] is None,
     "gqa needs the number of heads of keys and values, a divisor of n_heads={n_heads}"),
    ("n_groups", lambda v: v["n_groups"] is not None and v["n_heads"] % v["n_groups"] != 0,
     "n_heads={n_heads} is not a multiple of n_groups={n_groups}"),
    ("n_experts", lambda v: v["ffn_type"] == "moe" and v["n_experts"] is None, "ffn_type: moe needs it"),
    ("top_k", lambda v: v["top_k"] is not None and v["n_experts"] is not None and v["top_k"] > v["n_experts"],
     "{top_k} of n_experts={n_experts} cannot be chosen"),
    ("causal", lambda v: v["architecture"] == "decoder_only" and not v["causal"],
     "decoder_only is causal self-attention; use architecture: encoder_only to see both ways"),
    ("causal", lambda v: _masked(v) and v["attention_type"] == "latent_queries",
     "attention_type: latent_queries lets every step see the whole window; it needs causal=False"),
    ("causal", lambda v: _masked(v) and v["norm_type"] == "instance_norm",
     "norm_type: instance_norm averages over the whole window; it needs causal=False"),
)  # fmt: skip
ALWAYS: tuple[Rule, ...] = (
    ("lstm_dropout", lambda v: v["core_model_type"] == "lstm" and v["lstm_dropout"] and v["lstm_num_layers"] == 1,
     "{lstm_dropout:g} acts between layers, but lstm_num_layers=1"),
    ("causal", lambda v: _masked(v) and v["use_instance_norm"],
     "use_instance_norm averages over the whole window; it needs causal=False"),
    ("use_instance_norm", lambda v: v["use_instance_norm"] and v["use_layer_norm"],
     "use_layer_norm asks for another norm of the same layers; set one of the two"),
    ("use_skip_connections", lambda v: v["use_skip_connections"] and v["feature_extractor_type"] == "inception",
     "skip connections are those of feature_extractor_type: resnet, not of inception"),
    ("head_use_residual", lambda v: v["head_use_residual"] and v["head_n_layers"] == 1,
     "head_n_layers=1 leaves no layer for a shortcut to go around"),
)  # fmt: skip


def _masked(v: Values) -> bool:
    """Whether later steps are hidden: `causal`, where it applies."""
    queries = v["architecture"] == "encoder_decoder" and v["decoder_input"] == "queries"
    return bool(v["causal"]) and (v["core_model_type"] == "lstm" or not queries)
