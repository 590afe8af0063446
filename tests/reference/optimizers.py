"""Optimisers as their papers write them, over a mapping of float64 leaves; a weight without a gradient stays."""


def clip(weights, max_norm):
    """Scale all gradients so that their joint length is at most `max_norm`."""
    norm = sum(float((w.grad**2).sum()) for w in weights.values() if w.grad is not None) ** 0.5
    for weight in weights.values():
        if weight.grad is not None and max_norm is not None and norm > max_norm:
            weight.grad = weight.grad * (max_norm / norm)


class SlowAdam:
    """Adam (arXiv 1412.6980, algorithm 1); `decay` is AdamW's (arXiv 1711.05101), of matrices alone."""

    def __init__(self, eps=1e-8, betas=(0.9, 0.999), decay=0.0):
        self.eps, self.betas, self.decay, self.moments = eps, betas, decay, {}

    def step(self, weights, rate):
        (b1, b2) = self.betas
        for name, weight in weights.items():
            if weight.grad is None:
                continue
            steps, m, v = self.moments.get(name, (0, 0.0, 0.0))
            steps, m, v = steps + 1, b1 * m + (1 - b1) * weight.grad, b2 * v + (1 - b2) * weight.grad**2
            self.moments[name] = (steps, m, v)
            if weight.dim() >= 2:
                weight.data -= rate * self.decay * weight.data
            weight.data -= rate * (m / (1 - b1**steps)) / ((v / (1 - b2**steps)) ** 0.5 + self.eps)


class SlowSgd:
    """Gradient descent with momentum."""

    def __init__(self, momentum=0.0):
        self.momentum, self.speed = momentum, {}

    def step(self, weights, rate):
        for name, weight in weights.items():
            if weight.grad is not None:
                self.speed[name] = self.momentum * self.speed.get(name, 0.0) + weight.grad
                weight.data -= rate * self.speed[name]


class SlowAverage:
    """The moving average of weights (arXiv 1806.04498), from the weights of now on."""

    def __init__(self, weights, decay):
        self.decay, self.weights = decay, {name: w.detach().clone() for name, w in weights.items()}

    def follow(self, weights):
        for name, weight in weights.items():
            self.weights[name] = self.decay * self.weights[name] + (1 - self.decay) * weight.detach()
