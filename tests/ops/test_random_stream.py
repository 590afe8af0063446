"""A stream gives what torch's global generator would, in every thread, and leaves that one alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from torch.nn import functional as F

from policysmith.ops.random_stream import DRAWING, random_stream


def draws() -> list[torch.Tensor]:
    """By functions and methods in C, by those in Python, by layers, and by operations that take no generator."""
    ones = torch.ones(1, 1, 4, 4)
    return [
        torch.rand(3), torch.randn(2, 3), torch.randint(2**62, ()), torch.randperm(5), torch.rand_like(ones),
        torch.empty(3).uniform_(-1, 1), torch.empty(3).random_(9), torch.empty(3).exponential_(),
        torch.normal(torch.zeros(2), 1.0), torch.multinomial(torch.ones(5), 3), torch.bernoulli(ones / 2),
        nn.init.orthogonal_(torch.empty(3, 4)), nn.init.trunc_normal_(torch.empty(3)), nn.Linear(3, 2).weight.detach(),
        F.dropout(ones), F.rrelu(-ones, training=True), F.gumbel_softmax(ones), F.alpha_dropout(ones, training=True),
        F.scaled_dot_product_attention(ones, ones, ones, dropout_p=0.5), torch.native_dropout(ones, 0.5, True)[0],
        torch.distributions.Dirichlet(torch.ones(3)).sample(), torch.distributions.Gamma(1.0, 1.0).sample(),
    ]  # fmt: skip


def of_the_global_generator(seed: int) -> list[torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return draws()


def equal(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, found, wanted))


def test_a_stream_gives_what_the_global_generator_gives_and_leaves_it_alone():
    wanted, before = of_the_global_generator(5), torch.get_rng_state()
    with random_stream(5):
        assert equal(draws(), wanted)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_innermost_of_nested_streams_counts():
    wanted = of_the_global_generator(6)
    with random_stream(5):
        first = torch.rand(2)
        with random_stream(6):
            assert equal(draws(), wanted)
        second = torch.rand(2)
    assert torch.equal(torch.cat([first, second]), torch.rand(4, generator=torch.Generator().manual_seed(5)))


def test_threads_do_not_disturb_each_others_streams():
    wanted = [of_the_global_generator(seed) for seed in range(8)]

    def streamed(seed: int) -> list[torch.Tensor]:
        with random_stream(seed):
            return draws()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert all(map(equal, pool.map(streamed, range(8)), wanted))


def test_a_generator_that_is_given_and_other_devices_are_left_alone():
    with random_stream(5):
        given = torch.rand(3, generator=torch.Generator().manual_seed(1))
        filled = torch.empty(3).uniform_(generator=torch.Generator().manual_seed(1))
        assert nn.Linear(2, 2, device="meta").weight.is_meta
    assert torch.equal(given, filled)


def test_every_operation_of_torch_that_draws_is_known():
    packets = [getattr(torch.ops.aten, name) for name in dir(torch.ops.aten)]
    forms = [getattr(packet, name) for packet in packets if hasattr(packet, "overloads") for name in packet.overloads()]
    drawing = {form.overloadpacket.__name__ for form in forms if _draws(form)}
    kernels = {name for name in drawing - DRAWING if "attention" in name or name.endswith("_rnn")}  # of other devices
    assert drawing - DRAWING - kernels == set()


def _draws(form: torch._ops.OpOverload) -> bool:
    tagged = torch.Tag.nondeterministic_seeded in form.tags
    return tagged or any(argument.name == "generator" for argument in form._schema.arguments)
