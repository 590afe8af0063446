"""The options stored with a checkpoint of the original transformer factory: checked, and as a model of ours.

In: the flat configuration. Out: options with defaults filled in, or every reason why not; and our nested model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from policysmith.config.options import OptionSchema, failures
from policysmith.dialects.trading_bot.names import ModelConfig
from policysmith.store.weights_file import printable

__all__ = ["is_causal", "nested", "understood"]

Options = Mapping[str, Any]

SCHEMA = OptionSchema(ModelConfig, "model_config")
OURS = ("causal", "decoder_input")  # options that the original does not have
ALIASES = {"mqn": "mqa", "pyr": "pyramid"}


def understood(stored: Mapping[Any, Any], problems: list[str]) -> dict[str, Any]:
    """The options with the original's defaults; `problems` gains a line for each that cannot be had here."""
    given = {str(name): value for name, value in stored.items()}
    unknown = [name for name in given if name in OURS or name not in SCHEMA.parameters]
    problems += [f"{printable(name)}: is no option of the original that is known here" for name in unknown]
    values = {name: default for name, (_, default) in SCHEMA.parameters.items() if name not in OURS}
    known = {name: value for name, value in given.items() if name not in unknown}
    try:
        values |= {name: value for name, value in SCHEMA.decode(known, {}).items() if name in values}
    except ValidationError as error:
        problems += [f"{path[0]}: {message}" for path, message in failures(error)]
        values |= {name: value for name, value in known.items() if name not in {p[0] for p, _ in failures(error)}}
    options = _settled(values)
    problems += [f"{name}: {text.format(**options)}" for name, cannot, text in REFUSED if cannot(options)]
    return options


def is_causal(options: Options, unmasked: bool = False) -> bool:
    """Whether attention hides later steps: the original's pyramids ignored every mask."""
    if options["attention_type"] != "pyramid":
        return True
    return options["architecture"] == "decoder_only" and not unmasked


def nested(options: Options, causal: bool) -> dict[str, Any]:
    """The same model as we write it: a graph, for in the original the convolutions see later steps, blocks do not."""
    before = {key: {**_head(options), "in_keys": "pooling"} for key in ("actor", "critic")}
    heads = before if options["head_n_layers"] else {}
    actor, critic = heads or ("pooling", "pooling")
    components = {
        "extractor": {
            "type": "sequence_extractor",
            "in_keys": "observation",
            "extractor": _extractor(options),
            "causal": False,
        },
        "stack": {"type": "transformer_stack", "in_keys": "extractor", **_stack(options, causal)},
        "pooling": {"type": "sequence_pool", "in_keys": "stack", "kind": "last"},
        **(
            {name: {**_head(options), "in_keys": "pooling"} for name in ("actor", "critic")} if actor == "actor" else {}
        ),
        "policy": {"type": "action_head", "in_keys": actor},
        "state_value": {"type": "value_head", "in_keys": critic},
    }
    return {"type": "graph", "components": components, "batch_coupled": True}


def _settled(values: dict[str, Any]) -> dict[str, Any]:
    """What one option says about another in the original, and names as ours."""
    kind = "resnet" if values["use_skip_connections"] is True else values["feature_extractor_type"]
    attention = ALIASES.get(values["attention_type"], values["attention_type"])
    experts, dim = values["n_experts"], values["embedding_dim"]
    chosen = {"top_k": min(2, experts) if values["top_k"] is None and isinstance(experts, int) else values["top_k"]}
    hidden = {"ffn_dim": 4 * dim if values["ffn_dim"] is None and isinstance(dim, int) else values["ffn_dim"]}
    return {**values, "feature_extractor_type": kind, "attention_type": attention, **chosen, **hidden}


def _stack(o: Options, causal: bool) -> dict[str, Any]:
    is_decoder = o["architecture"] == "decoder_only"
    return {
        "dim": o["embedding_dim"],
        "architecture": "decoder_only" if is_decoder and causal else "encoder_only",
        "layers": o["n_decoder_layers" if is_decoder else "n_encoder_layers"],
        "causal": causal,
        "attention": _attention(o),
        "feedforward": _feedforward(o),
        "norm": "layer",
        "position": {"type": "time", "length": o["window_size"]},
        "residual": {"type": "gated" if o["use_gated_residual"] else "add", "scale": o["residual_scale"]},
        "dropout": o["dropout"],
        "block_norm": o["use_final_norm"],
    }


def _attention(o: Options) -> dict[str, Any]:
    bias = {"bias": True} if o["attention_type"] == "pyramid" else {}
    return {"type": o["attention_type"], "heads": o["n_heads"], "dropout": o["dropout"], **bias}


def _feedforward(o: Options) -> dict[str, Any]:
    dense = {"type": "mlp", "hidden": o["ffn_dim"], "dropout": o["dropout"]}
    if o["ffn_type"] == "standard":
        return dense
    router = {"type": "topk", "normalize": True}  # softmax over the chosen logits, of a single one as well
    return {"type": "moe", "experts": o["n_experts"], "top_k": o["top_k"], "expert": dense, "router": router}


def _extractor(o: Options) -> dict[str, Any]:
    sizes = {"hidden": o["feature_extractor_dim"], "layers": o["feature_extractor_layers"], "dim": o["embedding_dim"]}
    norm = "instance" if o["use_instance_norm"] else "batch"
    return {"type": o["feature_extractor_type"], **sizes, "norm": norm, "dropout": o["feature_dropout"]}


def _head(o: Options) -> dict[str, Any]:
    norm = "layer" if o["head_use_layer_norm"] else None
    dropout = o["dropout"] if o["head_dropout"] is None else o["head_dropout"]
    hidden = [o["head_hidden_dim"]] * o["head_n_layers"]
    return {"type": "mlp", "hidden": hidden, "activation": "gelu", "norm": norm, "dropout": dropout}


def _is(name: str, *values: Any) -> Callable[[Options], bool]:
    return lambda options: options[name] in values


def _moe(o: Options) -> bool:
    return bool(o["ffn_type"] == "moe")


def _single_layer(o: Options) -> bool:
    return o["feature_extractor_type"] == "basic" and o["feature_extractor_layers"] == 1


# Option, when it cannot be had, and why.
REFUSED: tuple[tuple[str, Callable[[Options], bool], str], ...] = (
    ("core_model_type", _is("core_model_type", "lstm"), "only transformers are imported, this is an lstm"),
    ("architecture", _is("architecture", "encoder_decoder"),
     "the original's policies gave an encoder_decoder no target and could not run it: no outputs are to be kept"),
    ("attention_type", _is("attention_type", "mla", "latent_queries"),
     "{attention_type} is learned latents as queries there: one output a latent, which runs only where there are as "
     "many latents as steps; our latent_queries lead back to the steps by weights that the file does not have"),
    ("attention_type", _is("attention_type", "gqa"),
     "the original could not build gqa, so no weights of it can be told"),
    ("embedding_dim", lambda o: bool(o["embedding_dim"] % o["n_heads"]),
     "{embedding_dim} is not a multiple of n_heads={n_heads}"),
    ("norm_type", _is("norm_type", "batch_norm", "instance_norm", "group_norm"),
     "the original's {norm_type} normalises the wrong axis of a sequence or fails, and ours the right one"),
    ("norm_type", _is("norm_type", "rms_norm"), "the original had no rms_norm, so no weights of it can be told"),
    ("n_experts", lambda o: _moe(o) and o["n_experts"] is None, "ffn_type moe needs it"),
    ("top_k", lambda o: _moe(o) and o["n_experts"] is not None and o["top_k"] > o["n_experts"],
     "{top_k} of n_experts={n_experts} cannot be chosen"),
    ("use_layer_norm", _is("use_layer_norm", True),
     "the original's extractor has these norms and never applies them; ours would"),
    ("feature_extractor_layers",
     lambda o: _single_layer(o) and o["feature_extractor_dim"] != o["embedding_dim"],
     "one layer gives {feature_extractor_dim} features, and its blocks read embedding_dim={embedding_dim}"),
    ("feature_extractor_dim", lambda o: o["feature_extractor_type"] == "inception" and o["feature_extractor_dim"] < 3,
     "{feature_extractor_dim} is too small for 3 branches"),
    ("head_use_residual", _is("head_use_residual", True),
     "the original's residual blocks of heads are laid out in a way that is not known here"),
)  # fmt: skip
