"""LSTM, GRU and minGRU as their equations read: one row, one step, one layer at a time."""

import torch


def slow_lstm(x, state, weights):
    """x (F,), state {h, c} (H,), weights of one layer → state."""
    w_i, w_f, w_g, w_o = weights["weight_ih"].chunk(4)
    u_i, u_f, u_g, u_o = weights["weight_hh"].chunk(4)
    b_i, b_f, b_g, b_o = (weights["bias_ih"] + weights["bias_hh"]).chunk(4)
    h, c = state["h"], state["c"]
    i = torch.sigmoid(w_i @ x + u_i @ h + b_i)
    f = torch.sigmoid(w_f @ x + u_f @ h + b_f)
    g = torch.tanh(w_g @ x + u_g @ h + b_g)
    o = torch.sigmoid(w_o @ x + u_o @ h + b_o)
    c = f * c + i * g
    return {"h": o * torch.tanh(c), "c": c}


def slow_gru(x, state, weights):
    w_r, w_z, w_n = weights["weight_ih"].chunk(3)
    u_r, u_z, u_n = weights["weight_hh"].chunk(3)
    b_r, b_z, b_n = weights["bias_ih"].chunk(3)
    d_r, d_z, d_n = weights["bias_hh"].chunk(3)
    h = state["h"]
    r = torch.sigmoid(w_r @ x + b_r + u_r @ h + d_r)
    z = torch.sigmoid(w_z @ x + b_z + u_z @ h + d_z)
    n = torch.tanh(w_n @ x + b_n + r * (u_n @ h + d_n))
    return {"h": (1 - z) * n + z * h}


def slow_mingru(x, state, weights):
    w_z, w_v = weights["weight"].chunk(2)
    b_z, b_v = weights["bias"].chunk(2)
    z, v = torch.sigmoid(w_z @ x + b_z), w_v @ x + b_v
    candidate = torch.stack([u + 0.5 if u >= 0 else torch.sigmoid(u) for u in v])
    return {"h": (1 - z) * state["h"] + z * candidate}


def slow_unroll(step, module, x_BTF, state, first_BT):
    """All rows, steps and layers of a `StackedMemory` in turn: outputs (B, T, H) and the state after."""
    weights = [{n: getattr(module, f"{n}_l{k}") for n in module.weight_names} for k in range(module.num_layers)]
    initial = {name: tensor[0] for name, tensor in module.initial_state(1).items()}
    outputs, after = [], []
    for row, x_TF in enumerate(x_BTF):
        now = {name: tensor[row] for name, tensor in state.items()}
        for x, first in zip(x_TF, first_BT[row], strict=True):
            now = initial if first else now
            layers = []
            for k, layer in enumerate(weights):
                layers.append(step(x, {name: tensor[k] for name, tensor in now.items()}, layer))
                x = layers[-1]["h"]
            now = {name: torch.stack([layer[name] for layer in layers]) for name in now}
            outputs.append(x)
        after.append(now)
    return (
        torch.stack(outputs).unflatten(0, x_BTF.shape[:2]),
        {name: torch.stack([row[name] for row in after]) for name in state},
    )
