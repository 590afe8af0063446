"""The slow twin of legacy agents: layers that set themselves up from their sources and run them when they are run.

B rows, T steps, H×W×C observations. Written from what is known of the original's behaviour: layers named in a
configuration, a lazy recursive forward that stops at what a mapping already holds, packed LSTM state h ‖ c.
"""

from __future__ import annotations

import copy

import torch
from torch import nn


class LayerBase(nn.Module):
    """A layer with a name and sources. `setup` learns shapes (without the batch) from them and makes the network."""

    def __init__(self, name, sources=None, nn_params=None, **ignored):
        super().__init__()
        self._name = name
        self._sources = None if sources is None else [s if isinstance(s, dict) else {"name": s} for s in sources]
        self._nn_params = dict(nn_params or {})
        self._net = None
        self._ready = False

    def setup(self, source_components=None):
        if self._ready:
            return
        self.__dict__["_source_components"] = source_components  # no child modules: they are the agent's
        self._in_tensor_shapes = [list(c._out_tensor_shape) for c in (source_components or {}).values()]
        self._out_tensor_shape = list(self._in_tensor_shapes[0]) if self._in_tensor_shapes else []
        self._make()
        self._ready = True

    def _make(self):
        self._net = self._make_net()

    def _make_net(self):
        return None

    def forward(self, td):
        if self._name in td:
            return td
        for component in (self._source_components or {}).values():
            component(td)
        return self._forward(td)

    def _forward(self, td):
        td[self._name] = self._net(td[self._sources[0]["name"]])
        return td


class ParamLayer(LayerBase):
    """A layer with weights and, unless told otherwise, a ReLU behind it."""

    def __init__(self, nonlinearity="nn.ReLU", initialization="Orthogonal", **cfg):
        super().__init__(**cfg)
        self.nonlinearity = nonlinearity

    def _make(self):
        net = self._make_net()
        nn.init.orthogonal_(net.weight, 2**0.5 if self.nonlinearity == "nn.Tanh" else 1.0)
        if net.bias is not None:
            nn.init.zeros_(net.bias)
        wanted = self.nonlinearity
        self._net = net if wanted is None else nn.Sequential(net, getattr(nn, wanted.split(".")[-1])())


class Linear(ParamLayer):
    def _make_net(self):
        (features,) = self._in_tensor_shapes[0]
        self._out_tensor_shape = [self._nn_params["out_features"]]
        return nn.Linear(features, **self._nn_params)


class Conv2d(ParamLayer):
    def _make_net(self):
        channels, *sides = self._in_tensor_shapes[0]
        p = {"stride": 1, "padding": 0, **self._nn_params}
        after = [(side + 2 * p["padding"] - p["kernel_size"]) / p["stride"] + 1 for side in sides]
        assert all(side.is_integer() for side in after)
        self._out_tensor_shape = [p["out_channels"], *map(int, after)]
        return nn.Conv2d(channels, **self._nn_params)


def _same_shape(name, make):
    return type(name, (LayerBase,), {"_make_net": make})


ReLU = _same_shape("ReLU", lambda self: nn.ReLU())
Identity = _same_shape("Identity", lambda self: nn.Identity())
Dropout = _same_shape("Dropout", lambda self: nn.Dropout(**self._nn_params))
LayerNorm = _same_shape("LayerNorm", lambda self: nn.LayerNorm(self._in_tensor_shapes[0][0], **self._nn_params))
BatchNorm2d = _same_shape("BatchNorm2d", lambda self: nn.BatchNorm2d(self._in_tensor_shapes[0][0], **self._nn_params))


class Flatten(LayerBase):
    def _make_net(self):
        size = 1
        for side in self._in_tensor_shapes[0]:
            size *= side
        self._out_tensor_shape = [size]
        return nn.Flatten()


class Bilinear(LayerBase):
    def _make_net(self):
        self._out_tensor_shape = [self._nn_params["out_features"]]
        return nn.Bilinear(self._in_tensor_shapes[0][0], self._in_tensor_shapes[1][0], **self._nn_params)

    def _forward(self, td):
        td[self._name] = self._net(*(td[source["name"]] for source in self._sources))
        return td


class Swish(nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return x * torch.sigmoid(self.beta * x)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        layers = [layer for _ in range(4) for layer in (nn.Linear(width, width), nn.LayerNorm(width), Swish())]
        self.block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.block(x)


class ResNetMLP(LayerBase):
    def __init__(self, depth, **cfg):
        super().__init__(**cfg)
        self.depth = depth

    def _make(self):
        width = self._in_tensor_shapes[0][0]
        self.residual_layers = nn.Sequential(*(Residual(width) for _ in range(self.depth // 4)))

    def _forward(self, td):
        td[self._name] = self.residual_layers(td[self._sources[0]["name"]])
        return td


class ObsShaper(LayerBase):
    def __init__(self, obs_shape, **cfg):
        super().__init__(**cfg)
        self.obs_shape = tuple(obs_shape)

    def _make(self):
        height, width, channels = self.obs_shape
        self._out_tensor_shape = [channels, height, width]

    def _forward(self, td):
        x = td["x"]
        lead = x.shape[:-3]
        td["_batch_size_"], td["_TT_"] = lead[0], lead[1] if len(lead) == 2 else 1
        td["_BxTT_"] = td["_batch_size_"] * td["_TT_"]
        td[self._name] = x.reshape(td["_BxTT_"], *self.obs_shape).float().permute(0, 3, 1, 2)
        return td


class ObservationNormalizer(LayerBase):
    def __init__(self, feature_max, **cfg):
        super().__init__(**cfg)
        self.register_buffer("obs_norm", torch.tensor(feature_max).float().view(1, -1, 1, 1))

    def _forward(self, td):
        td[self._name] = td[self._sources[0]["name"]] / self.obs_norm
        return td


class LSTM(LayerBase):
    def __init__(self, hidden_size, output_size=None, **cfg):
        super().__init__(**cfg)
        self.hidden_size = hidden_size

    def _make_net(self):
        net = nn.LSTM(self._in_tensor_shapes[0][0], self.hidden_size, **self._nn_params)
        for name, parameter in net.named_parameters():
            nn.init.ones_(parameter) if "bias" in name else nn.init.orthogonal_(parameter)
        self._out_tensor_shape = [self.hidden_size]
        return net

    def _forward(self, td):
        x, state = td[self._sources[0]["name"]], td.get("state")
        sequence = x.unflatten(0, (td["_batch_size_"], td["_TT_"])).transpose(0, 1)
        y, (h, c) = self._net(sequence, None if state is None else tuple(s.contiguous() for s in state.chunk(2)))
        td[self._name] = y.transpose(0, 1).flatten(0, 1)
        td["state"] = torch.cat([h, c]).detach()
        return td


class MergeLayer(LayerBase):
    def _make(self):
        self.dims = [source.get("dim", 1) for source in self._sources]
        self._in_tensor_shapes = []
        for source in self._sources:
            shape = list(self._source_components[source["name"]]._out_tensor_shape)
            if "slice" in source:
                shape[source["dim"] - 1] = source["slice"][1] - source["slice"][0]
            self._in_tensor_shapes.append(shape)
        self._out_tensor_shape = list(self._in_tensor_shapes[0])

    def forward(self, td):
        for component in self._source_components.values():
            component(td)
        return self._forward(td)

    def _forward(self, td):
        parts = []
        for source in self._sources:
            x = td[source["name"]]
            if "slice" in source:
                start, end = source["slice"]
                x = x.narrow(source["dim"], start, end - start)
            parts.append(x)
        td[self._name] = self._merge(parts)
        return td


class ConcatMergeLayer(MergeLayer):
    def _make(self):
        super()._make()
        axis = self.dims[0] - 1
        self._out_tensor_shape[axis] = sum(shape[axis] for shape in self._in_tensor_shapes)

    def _merge(self, parts):
        return torch.cat(parts, self.dims[0])


class AddMergeLayer(MergeLayer):
    def _merge(self, parts):
        return sum(parts[1:], parts[0])


class SubtractMergeLayer(MergeLayer):
    def _merge(self, parts):
        return parts[0] - parts[1]


class MeanMergeLayer(MergeLayer):
    def _merge(self, parts):
        return sum(parts[1:], parts[0]) / len(parts)


class CenterPixelLayer(LayerBase):
    def _make(self):
        del self._out_tensor_shape[-2:]

    def _forward(self, td):
        x = td[self._sources[0]["name"]]
        td[self._name] = x[:, :, x.shape[2] // 2, x.shape[3] // 2]
        return td


class ExpandLayer(LayerBase):
    def __init__(self, expand_dim, expand_value, **cfg):
        super().__init__(**cfg)
        self.dim, self.value = expand_dim, expand_value

    def _make(self):
        self._out_tensor_shape.insert(self.dim - 1, self.value)

    def _forward(self, td):
        x = td[self._sources[0]["name"]].unsqueeze(self.dim)
        td[self._name] = x.expand(*(self.value if i == self.dim else -1 for i in range(x.dim()))).contiguous()
        return td


class ReshapeLayer(LayerBase):
    def __init__(self, popped_dim, squeezed_dim, **cfg):
        super().__init__(**cfg)
        self.popped, self.squeezed = popped_dim, squeezed_dim

    def _folded(self, shape):
        size = shape[self.popped] * shape[self.squeezed]
        shape.pop(self.popped)
        shape[self.squeezed] = size
        return shape

    def _make(self):
        self._out_tensor_shape = self._folded([0, *self._out_tensor_shape])[1:]

    def _forward(self, td):
        x = td[self._sources[0]["name"]]
        td[self._name] = x.reshape(self._folded(list(x.shape)))
        return td


class ActionEmbedding(LayerBase):
    def __init__(self, **cfg):
        super().__init__(**cfg)
        self.register_buffer("active_indices", torch.tensor([], dtype=torch.long))
        self._known = {}

    def _make_net(self):
        self._out_tensor_shape = [0, self._nn_params["embedding_dim"]]
        return nn.Embedding(**self._nn_params)

    def activate_actions(self, names):
        for name in names:
            self._known.setdefault(name, len(self._known) + 1)
        self.active_indices = torch.tensor([self._known[name] for name in names])

    def _forward(self, td):
        vectors = self._net(self.active_indices)
        td[self._name] = vectors.repeat(td["_BxTT_"], 1, 1)
        return td


class MettaActorSingleHead(LayerBase):
    forms = 1

    def _make(self):
        width, dim = self._in_tensor_shapes[0][0], self._in_tensor_shapes[1][1]
        self.W = nn.Parameter(torch.randn(self.forms, width, dim) / width**0.5)
        self.bias = nn.Parameter(torch.randn(self.forms))

    def _scores(self, td):
        x, vectors = (td[source["name"]] for source in self._sources)
        rows = [torch.tanh(x @ form) for form in self.W]  # K of (B, E)
        scores = [(row.unsqueeze(1) * vectors).sum(-1) + b for row, b in zip(rows, self.bias, strict=True)]
        return torch.stack(scores, -1)  # (B, A, K)

    def _forward(self, td):
        td[self._name] = self._scores(td).squeeze(-1)
        return td


class MettaActorBig(MettaActorSingleHead):
    forms = 32

    def _make(self):
        super()._make()
        self._MLP = nn.Sequential(nn.Linear(self.forms, 512), nn.ReLU(), nn.Linear(512, 1))

    def _forward(self, td):
        td[self._name] = self._MLP(torch.relu(self._scores(td))).squeeze(-1)
        return td


class LegacyAgent(nn.Module):
    """The agent of a configuration: components by name, set up from `_value_` and `_action_`, run when asked for."""

    def __init__(self, config, obs_shape, actions, feature_max=None):
        super().__init__()
        core = config["components"].get("_core_", {})
        given = {
            ObsShaper: {"obs_shape": obs_shape},
            ObservationNormalizer: {"feature_max": feature_max},
            LSTM: {"hidden_size": core.get("output_size")},
        }
        self.components = nn.ModuleDict()
        for name, entry in copy.deepcopy(config["components"]).items():
            kind = globals()[entry.pop("_target_").rpartition(".")[2]]
            self.components[name] = kind(name=name, **entry, **given.get(kind, {}))
        for name in ("_value_", "_action_"):
            self._setup(self.components[name])
        for name, component in self.components.items():
            if not component._ready:
                raise RuntimeError(f"component {name} was never setup")
        names = [f"{name}_{p}" for name, largest in actions.items() for p in range(largest + 1)]
        for component in self.components.values():
            if isinstance(component, ActionEmbedding):
                component.activate_actions(names)

    def _setup(self, component):
        sources = {source["name"]: self.components[source["name"]] for source in component._sources or []}
        for source in sources.values():
            self._setup(source)
        component.setup(sources)

    def forward(self, x, state=None):
        """x (B, H, W, C) or (B, T, H, W, C), packed state (2L, B, H) → logits (B·T, A), value (B·T, 1), state."""
        td = {"x": x, "state": state}
        self.components["_value_"](td)
        self.components["_action_"](td)
        return td["_action_"], td["_value_"], td["state"]
