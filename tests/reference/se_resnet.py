"""The KataGo-like tower written plainly, with the names of the original's stored weights, and the map to ours."""

import torch
from torch import nn

# The first prefix that fits says where a tensor of the original lies in ours.
KEYS = {
    "policy_": "components.policy.",
    "value_": "components.value_logits.",
    "score_": "components.score_lead.",
    "": "components.trunk.",
}


def pooled(x):
    """Mean, maximum and population deviation, each from its definition."""
    points = x.flatten(2)
    mean = points.sum(-1) / points.shape[-1]
    variance = (points - mean[..., None]).pow(2).sum(-1) / points.shape[-1]
    return torch.cat([mean, points.max(-1).values, variance.sqrt()], 1)


class Block(nn.Module):
    def __init__(self, channels, se_reduction, global_pool_channels):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        first = nn.Linear(3 * channels, global_pool_channels)
        self.global_fc = nn.ModuleList([first, nn.Identity(), nn.Linear(global_pool_channels, channels)])
        self.se_fc1 = nn.Linear(channels, channels // se_reduction)
        self.se_fc2 = nn.Linear(channels // se_reduction, 2 * channels)
        self.channels = channels

    def forward(self, x):
        bias = self.global_fc[2](torch.relu(self.global_fc[0](pooled(x))))
        y = torch.relu(self.bn1(self.conv1(x))) + bias[:, :, None, None]
        y = self.bn2(self.conv2(y))
        gates = self.se_fc2(torch.relu(self.se_fc1(y.flatten(2).sum(-1) / y[0, 0].numel())))
        scale, shift = gates[:, : self.channels], gates[:, self.channels :]
        y = y / (1 + torch.exp(-scale))[:, :, None, None] + shift[:, :, None, None]
        return torch.relu(x + y)


class SEResNet(nn.Module):
    def __init__(
        self, obs_channels, moves, num_blocks, channels, se_reduction, global_pool_channels,
        policy_channels, value_fc_size, score_fc_size,
    ):  # fmt: skip
        super().__init__()
        self.input_conv = nn.Conv2d(obs_channels, channels, 3, padding=1, bias=False)
        self.input_bn = nn.BatchNorm2d(channels)
        self.blocks = nn.ModuleList(Block(channels, se_reduction, global_pool_channels) for _ in range(num_blocks))
        self.policy_conv1 = nn.Conv2d(channels, policy_channels, 1, bias=False)
        self.policy_bn1 = nn.BatchNorm2d(policy_channels)
        self.policy_conv2 = nn.Conv2d(policy_channels, moves, 1)
        self.value_fc1, self.value_fc2 = nn.Linear(3 * channels, value_fc_size), nn.Linear(value_fc_size, 3)
        self.score_fc1, self.score_fc2 = nn.Linear(3 * channels, score_fc_size), nn.Linear(score_fc_size, 1)

    def forward(self, x):
        """x (B, C, H, W) → move logits (B, H, W, M), outcome logits (B, 3), score (B, 1)."""
        x = torch.relu(self.input_bn(self.input_conv(x)))
        for block in self.blocks:
            x = block(x)
        planes = self.policy_conv2(torch.relu(self.policy_bn1(self.policy_conv1(x))))
        moves = torch.stack([torch.stack(list(row.unbind(-1)), 1) for row in planes.unbind(2)], 1)
        features = pooled(x)
        outcome = self.value_fc2(torch.relu(self.value_fc1(features)))
        return moves, outcome, self.score_fc2(torch.relu(self.score_fc1(features)))


def our_name(name):
    """Where a tensor of the original's state_dict lies in that of our model."""
    prefix = next(prefix for prefix in KEYS if name.startswith(prefix))
    return KEYS[prefix] + name.removeprefix(prefix)
