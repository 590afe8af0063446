"""The actor-critic tower of seeds/001 written plainly, with the names of its stored weights, and the map to ours."""

import torch
from torch import nn

# The first prefix that fits says where a tensor of the original lies in ours.
KEYS = {
    "policy_head.4.": "components.policy.4.out.",
    "policy_head.": "components.policy.",
    "value_head.4.": "components.state_value.4.out.",
    "value_head.": "components.state_value.",
    "": "components.trunk.",
}


class SqueezeExcitation(nn.Module):
    def __init__(self, width, ratio):
        super().__init__()
        hidden = max(1, int(width * ratio))
        self.fc1, self.fc2 = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x):
        pooled = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))


class Block(nn.Module):
    def __init__(self, width, se_ratio):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.se = SqueezeExcitation(width, se_ratio) if se_ratio else None

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.se is not None:
            y = self.se(y)
        return torch.relu(x + y)


class ResTower(nn.Module):
    def __init__(self, channels, actions, depth, width, se_ratio=None, board=(9, 9)):
        super().__init__()
        self.stem, self.bn_stem = nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)
        self.res_blocks = nn.ModuleList(Block(width, se_ratio) for _ in range(depth))
        self.policy_head = self._head(width, board, actions)
        self.value_head = self._head(width, board, 1)

    @staticmethod
    def _head(width, board, outputs):
        planes = [nn.Conv2d(width, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*planes, nn.Linear(2 * board[0] * board[1], outputs))

    def forward(self, x):
        x = torch.relu(self.bn_stem(self.stem(x)))
        for block in self.res_blocks:
            x = block(x)
        return self.policy_head(x), self.value_head(x).squeeze(-1)


def our_name(name):
    """Where a tensor of the original's state_dict lies in that of our tower."""
    prefix = next(prefix for prefix in KEYS if name.startswith(prefix))
    return KEYS[prefix] + name.removeprefix(prefix)
