"""Legacy agents as configurations, for tests."""

import copy

SHAPE = (11, 11, 22)
ACTIONS = {"noop": 0, "move": 1, "rotate": 3, "attack": 1}  # 9 in all
LIB = "metta.agent.lib"


def layer(kind, *sources, library="nn_layer_library", **options):
    """One entry; keyword arguments that torch's layers take go under `nn_params`."""
    of_torch = ("out_features", "out_channels", "kernel_size", "stride", "padding", "num_layers", "num_embeddings",
                "embedding_dim", "p", "eps", "bias")  # fmt: skip
    params = {key: options.pop(key) for key in of_torch if key in options}
    named = [source if isinstance(source, dict) else {"name": source} for source in sources] or None
    entry = {"_target_": f"{LIB}.{library}.{kind}", "sources": named, **options}
    return {**entry, "nn_params": params} if params else entry


HEAD = {
    "_action_embeds_": layer("ActionEmbedding", num_embeddings=100, embedding_dim=16),
    "_action_": layer("MettaActorSingleHead", "actor_1", "_action_embeds_"),
}
SIMPLE = {
    "_target_": "metta.agent.metta_agent.MettaAgent",
    "observations": {"obs_key": "grid_obs"},
    "clip_range": 0,
    "analyze_weights_interval": 300,
    "l2_init_weight_update_interval": 0,
    "components": {
        "_obs_": layer("ObsShaper"),
        "obs_normalizer": layer("ObservationNormalizer", "_obs_"),
        "cnn1": layer("Conv2d", "obs_normalizer", out_channels=64, kernel_size=5, stride=3),
        "cnn2": layer("Conv2d", "cnn1", out_channels=64, kernel_size=3, stride=1),
        "obs_flattener": layer("Flatten", "cnn2"),
        "fc1": layer("Linear", "obs_flattener", out_features=128),
        "encoded_obs": layer("Linear", "fc1", out_features=128),
        "_core_": layer("LSTM", "encoded_obs", output_size=128, num_layers=2),
        "core_relu": layer("ReLU", "_core_"),
        "critic_1": layer("Linear", "core_relu", out_features=1024, nonlinearity="nn.Tanh", effective_rank=True),
        "_value_": layer("Linear", "critic_1", out_features=1, nonlinearity=None),
        "actor_1": layer("Linear", "core_relu", out_features=512),
        **HEAD,
    },
}


def changed(base=SIMPLE, **components):
    """A configuration with other components; None takes one away."""
    config = copy.deepcopy(base)
    for name, entry in components.items():
        config["components"].pop(name, None)
        if entry is not None:
            config["components"][name] = entry
    return config


def small(**components):
    """A tiny agent with a core of 6, and what a test adds or replaces."""
    base = {
        "components": {
            "_obs_": layer("ObsShaper"),
            "flat": layer("Flatten", "_obs_"),
            "encoded_obs": layer("Linear", "flat", out_features=10),
            "_core_": layer("LSTM", "encoded_obs", output_size=6, num_layers=1),
            "_value_": layer("Linear", "_core_", out_features=1, nonlinearity=None),
            "actor_1": layer("Linear", "_core_", out_features=7),
            **HEAD,
        }
    }
    return changed(base, **components)
