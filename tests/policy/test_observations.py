"""Observations: from what an environment gives to what the network reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from policysmith.errors import ConfigError, ShapeError
from policysmith.parts import ImageEncoder, OneHot, RunningNormalizer, ToFloat
from policysmith.policy import ActorCritic, Observations, build_policy
from policysmith.registry import default_registry
from tests.laws.policies import OBSERVATIONS, leaves, samples, stack

NESTED = OBSERVATIONS["dict"]


def build(space: Any, components: Mapping[str, Any] | None = None, **observation: Any) -> ActorCritic:
    model: dict[str, Any] = {"type": "mlp", "hidden": [8]}
    if components is not None:
        heads = {
            "policy": {"type": "action_head", "in_keys": list(components)},
            "state_value": {"type": "value_head", "in_keys": list(components)},
        }
        model = {"type": "graph", "components": {**components, **heads}}
    spec = default_registry.decode("model", model)
    return build_policy(spec, space, spaces.Discrete(2), default_registry, seed=0, observation=observation).eval()


def refusal(space: Any, **observation: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(space, **observation)
    return str(caught.value)


def read_by_the_trunk(policy: ActorCritic, obs: Any, edge: str) -> torch.Tensor:
    """The value of an edge: what the part behind an encoder sees."""
    values = dict(zip(policy.plan.inputs, policy.observations.read(obs), strict=True))
    for step in policy.runner.steps:
        step(values)
    return values[edge]


# --- prepare -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_one_observation_becomes_a_batch_of_one_and_a_batch_stays(name):
    space = OBSERVATIONS[name]()
    observations = Observations(space)
    points = samples(space, 3)
    batch = observations.prepare(stack(points))
    for row, point in enumerate(points):
        one = observations.prepare(point)
        for single, many in zip(leaves(one), leaves(batch), strict=True):
            assert single.shape == (1, *many.shape[1:])
            assert torch.equal(single[0], many[row])
    specs = [observations.inputs[leaf.name] for leaf in observations.leaves]
    prepared = observations.read(batch)
    assert [(tuple(t.shape[1:]), t.dtype) for t in prepared] == [(s.shape, s.dtype) for s in specs]


def test_numbers_keep_their_values():
    observations = Observations(spaces.Box(-9, 9, (2,), np.float64))
    prepared = observations.prepare(np.array([1.5, -2.25]))
    assert prepared.dtype == torch.float32
    assert prepared.tolist() == [[1.5, -2.25]]


def test_categories_start_at_zero_inside():
    assert Observations(spaces.Discrete(3, start=-5)).prepare(np.array([-5, -3])).tolist() == [0, 2]
    assert Observations(spaces.Discrete(3, start=2)).prepare(np.int64(4)).tolist() == [2]
    assert Observations(spaces.Discrete(3, start=2)).prepare(4).tolist() == [2]
    several = Observations(spaces.MultiDiscrete([3, 4], start=[1, -1]))
    assert several.prepare(np.array([[1, -1], [3, 2]])).tolist() == [[0, 0], [2, 3]]


def test_images_stay_bytes_until_the_network():
    observations = Observations(OBSERVATIONS["image_hwc"]())
    assert observations.prepare(np.zeros((5, 10, 9, 3), np.uint8)).dtype == torch.uint8


def test_a_dict_keeps_its_structure_and_a_tuple_its_order():
    observations = Observations(NESTED())
    prepared = observations.prepare(stack(samples(NESTED(), 2)))
    assert prepared["camera"].shape == (2, 9, 9, 3)
    assert prepared["inner"]["speed"].shape == (2, 2)
    assert list(observations.inputs) == ["observation.camera", "observation.inner.room", "observation.inner.speed"]
    pair = Observations(OBSERVATIONS["tuple"]())
    assert [tuple(t.shape) for t in pair.read(pair.prepare(stack(samples(pair.space, 2))))] == [(2, 2, 2), (2, 2), (2,)]


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("vector", np.zeros(3), r"observation has shape \(3,\), expected \(…, 4\)"),
        ("vector", np.zeros((2, 5)), r"observation has shape \(2, 5\), expected \(…, 4\)"),
        ("image_hwc", np.zeros((3, 10, 9), np.uint8), "channels are elsewhere: NHWC or NCHW"),
        ("image_chw", np.zeros((10, 10, 3), np.uint8), "channels are elsewhere: NHWC or NCHW"),
    ],
)
def test_an_observation_of_another_shape_is_refused_with_both_shapes(name, given, text):
    with pytest.raises(ShapeError, match=text):
        Observations(OBSERVATIONS[name]()).prepare(given)


def test_an_observation_without_a_leaf_is_refused_naming_it():
    observations = Observations(NESTED())
    for partial in ({"camera": np.zeros((9, 9, 3), np.uint8)}, {}, np.zeros(3)):
        with pytest.raises(ShapeError, match=r"inner\.room"):
            observations.read(partial)
        with pytest.raises(ShapeError, match=r"inner\.room|camera"):
            observations.prepare(partial)


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_predict_answers_one_with_one_and_many_with_many(name):
    space = OBSERVATIONS[name]()
    policy = build(space)
    points = samples(space, 3)
    many, _ = policy.predict(stack(points))
    assert many.shape == (3,)
    for row, point in enumerate(points):
        one, _ = policy.predict(point)
        assert np.ndim(one) == 0
        assert one == many[row]


def test_predict_takes_a_plain_number():
    assert np.ndim(build(OBSERVATIONS["discrete"]()).predict(-1)[0]) == 0


def test_predict_takes_a_plain_list():
    policy = build(OBSERVATIONS["vector"]())
    assert np.ndim(policy.predict([0.1, 0.2, 0.3, 0.4])[0]) == 0
    assert np.shape(policy.predict([[0.1, 0.2, 0.3, 0.4]])[0]) == (1,)


# --- encoders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("vector", {}),
        ("scalar", {}),
        ("image_hwc", {"observation_encoder": ImageEncoder}),
        ("discrete", {"observation_encoder": OneHot}),
        ("multidiscrete", {"observation_encoder": OneHot}),
        ("multibinary_2d", {"observation_encoder": ToFloat}),
        ("dict", {"observation_camera_encoder": ImageEncoder, "observation_inner_room_encoder": OneHot}),
        ("tuple", {"observation_1_0_encoder": ToFloat, "observation_1_1_encoder": OneHot}),
    ],
)
def test_an_encoder_is_put_where_one_is_needed(name, kinds):
    policy = build(OBSERVATIONS[name]())
    found = {n: type(c.module) for n, c in policy.components.items() if n.endswith("_encoder")}
    assert found == kinds


def test_one_hot_vectors_say_which_value_each_category_has():
    policy = build(spaces.MultiDiscrete([2, 3], start=[1, 0]))
    seen = read_by_the_trunk(policy, policy.prepare(np.array([[2, 0], [1, 2]])), "observation_encoder")
    assert seen.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]


def test_a_part_that_takes_indices_reads_them_raw():
    policy = build(spaces.Discrete(3, start=4), {"table": {"type": "embedding", "in_keys": "observation", "dim": 5}})
    assert list(policy.components) == ["table", "policy", "state_value"]
    torch.testing.assert_close(
        read_by_the_trunk(policy, policy.prepare(np.array([5])), "table"),
        policy.components["table"].module.table.weight[1:2],
    )


def test_indices_and_numbers_may_be_read_side_by_side():
    space = spaces.Dict(room=spaces.Discrete(3), speed=spaces.Box(-1, 1, (2,)))
    table = {"type": "embedding", "in_keys": "observation.room", "dim": 5}
    policy = build(space, {"table": table, "all": {"type": "mlp", "in_keys": "observation", "hidden": [4]}})
    assert policy.plan.node("all").sources == ("observation_room_encoder", "observation.speed")
    assert policy.plan.node("table").sources == ("observation.room",)
    assert policy(policy.prepare(stack(samples(space, 2))))[1].shape == (2,)


def test_a_shared_part_reads_what_its_owner_reads():
    first = {"type": "embedding", "in_keys": "observation.a", "dim": 5}
    space = spaces.Dict(a=spaces.Discrete(3), b=spaces.Discrete(3))
    policy = build(space, {"first": first, "second": {"use": "first", "in_keys": "observation.b"}})
    found = policy(policy.prepare(stack(samples(space, 2))))
    assert found[1].shape == (2,)
    assert policy.components["second"].module is policy.components["first"].module


@pytest.mark.parametrize("key", ["front-camera", "camera 1", "2nd", "keys"])
def test_any_name_of_a_leaf_can_be_encoded(key):
    policy = build(spaces.Dict({key: spaces.Box(0, 255, (6, 6, 3), np.uint8), "x": spaces.Box(-1, 1, (2,))}))
    assert policy(policy.prepare(stack(samples(policy.observations.space, 2))))[1].shape == (2,)


def test_leaves_whose_names_look_alike_have_encoders_of_their_own():
    space = spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2)), a_b=spaces.Discrete(7))
    policy = build(space)
    assert policy.plan.node("actor").context["flat_features"] == 9
    encoders = [c for n, c in policy.components.items() if isinstance(c.module, OneHot)]
    assert sorted(len(c.module.values) for c in encoders) == [2, 7]
    assert policy(policy.prepare(stack(samples(space, 2))))[1].shape == (2,)


def test_a_component_of_ones_own_may_have_the_name_of_an_encoder():
    trunk = {"type": "conv", "in_keys": "observation", "channels": [4], "features": 5}
    policy = build(spaces.Box(0, 255, (6, 6, 3), np.uint8), {"observation_encoder": trunk})
    assert policy(torch.zeros(2, 6, 6, 3, dtype=torch.uint8))[1].shape == (2,)


# --- images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((84, 84, 4), "hwc"),
        ((4, 84, 84), "chw"),
        ((210, 160, 3), "hwc"),
        ((3, 210, 160), "chw"),
        ((64, 48), "hw"),
        ((7, 7, 3), "hwc"),
        ((1, 9, 9), "chw"),
        ((3, 3, 5), "hwc"),
        ((5, 3, 3), "chw"),
    ],
)
def test_the_channel_axis_of_an_image_is_found(shape, layout):
    policy = build(spaces.Box(0, 255, shape, np.uint8))
    node = policy.plan.node("observation_encoder")
    assert node.part.options["layout"] == layout
    channels = {"hwc": shape[-1], "chw": shape[0], "hw": 1}[layout]
    assert node.measure.outputs[0].shape[0] == channels


@pytest.mark.parametrize("layout", ["hwc", "chw", "hw"])
def test_an_image_is_seen_channels_first_and_between_zero_and_one(layout):
    policy = build(OBSERVATIONS[f"image_{layout}"]())
    image = policy.observations.space.sample()
    seen = read_by_the_trunk(policy, policy.prepare(image), "observation_encoder")[0]
    first = {"hwc": np.moveaxis(image, -1, 0) if image.ndim == 3 else image, "chw": image, "hw": image[None]}[layout]
    np.testing.assert_allclose(seen.numpy(), first / 255, rtol=1e-6)


def test_bytes_that_are_no_image_are_numbers():
    policy = build(spaces.Box(0, 255, (128,), np.uint8))
    assert type(policy.components["observation_encoder"].module) is ToFloat


# --- exclude, scale, normalize -----------------------------------------------------------------------------------


def test_an_excluded_leaf_is_not_read_and_need_not_be_given():
    policy = build(NESTED(), exclude=["camera", "inner.room"])
    assert list(policy.plan.inputs) == ["observation.inner.speed"]
    assert policy({"inner": {"speed": torch.zeros(2, 2)}})[1].shape == (2,)


def test_a_whole_branch_can_be_excluded():
    assert list(build(NESTED(), exclude=["inner"]).plan.inputs) == ["observation.camera"]


def test_text_can_be_excluded():
    space = spaces.Dict(mission=spaces.Text(10), image=spaces.Box(0, 255, (7, 7, 3), np.uint8))
    assert "exclude it (observation: {exclude: [mission]})" in refusal(space)
    policy = build(space, exclude=["mission"])
    assert policy.predict({"mission": "go", "image": np.zeros((7, 7, 3), np.uint8)})[0] in (0, 1)


def test_an_excluded_mask_is_not_applied():
    space = spaces.Dict(x=spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(2))
    policy = build(space, exclude=["action_mask"])
    assert list(policy.plan.inputs) == ["observation.x"]
    obs = {"x": torch.zeros(50, 2), "action_mask": torch.zeros(50, 2)}
    assert policy.get_action_and_value(obs)[1].all()


def test_a_scale_divides():
    policy = build(spaces.Dict(a=spaces.Box(0, 100, (2,)), b=spaces.Box(0, 1, (2,))), scale={"a": 100.0})
    seen = read_by_the_trunk(
        policy, {"a": torch.tensor([[50.0, 100.0]]), "b": torch.zeros(1, 2)}, "observation_a_encoder"
    )
    torch.testing.assert_close(seen, torch.tensor([[0.5, 1.0]]))
    assert policy.plan.node("actor").sources == ("observation_a_encoder", "observation.b")


def test_a_scale_of_an_image_replaces_255():
    policy = build(spaces.Box(0, 255, (7, 7, 3), np.uint8), scale={"observation": 10.0})
    seen = read_by_the_trunk(policy, torch.full((1, 7, 7, 3), 20, dtype=torch.uint8), "observation_encoder")
    torch.testing.assert_close(seen, torch.full((1, 3, 7, 7), 2.0))


def test_normalize_puts_a_normaliser_behind_the_encoder_of_what_it_names():
    everything = build(NESTED(), normalize=True)
    named = {n for n, c in everything.components.items() if isinstance(c.module, RunningNormalizer)}
    assert named == {"observation_camera_normalizer", "observation_inner_speed_normalizer"}  # categories need none
    assert everything.plan.node("observation_camera_normalizer").sources == ("observation_camera_encoder",)
    one = build(NESTED(), normalize=["inner.speed"])
    assert [n for n in one.components if n.endswith("normalizer")] == ["observation_inner_speed_normalizer"]
    assert not build(NESTED()).has_statistics
    assert one.has_statistics


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"exclude": ["camra"]}, "cannot exclude 'camra' (did you mean 'camera'?)"),
        ({"exclude": ["inner.rom"]}, "cannot exclude 'inner.rom' (did you mean 'inner.room'?)"),
        ({"scale": {"camra": 2.0}}, "no observation 'camra' (did you mean 'camera'?)"),
        ({"normalize": ["inner.sped"]}, "no observation 'inner.sped' (did you mean 'inner.speed'?)"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_right_one(options, sentence):
    text = refusal(NESTED(), **options)
    assert sentence in text
    assert text.startswith("observation")
    assert "inner.speed" in text  # and what there is


def test_categories_cannot_be_scaled_or_normalised_silently():
    assert "room" in refusal(NESTED(), scale={"inner.room": 2.0})
    assert "room" in refusal(NESTED(), normalize=["inner.room"])


def test_all_wrong_names_are_reported_at_once():
    text = refusal(NESTED(), exclude=["camra"], scale={"sped": 2.0}, normalize=["rom"])
    assert all(name in text for name in ("camra", "sped", "rom"))


def test_an_observation_space_with_nothing_left_is_refused():
    assert "no leaf left to read" in refusal(spaces.Dict(a=spaces.Discrete(2)), exclude=["a"])


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Text(5), "the observation space has a Text at its root: text has no fixed size"),
        (spaces.Dict(a=spaces.Graph(spaces.Box(-1, 1, (2,)), None)), "has a Graph at a: graphs vary in size"),
        (spaces.Tuple((spaces.Sequence(spaces.Discrete(2)),)), "has a Sequence at 0: sequences vary in length"),
    ],
    ids=["Text", "Graph", "Sequence"],
)
def test_what_can_be_no_tensor_is_refused_with_advice(space, sentence):
    assert sentence in refusal(space)


# --- running statistics ------------------------------------------------------------------------------------------


def normaliser(policy: ActorCritic) -> RunningNormalizer:
    return policy.components["observation_normalizer"].module


def test_only_update_statistics_changes_the_statistics():
    policy = build(spaces.Box(-np.inf, np.inf, (3,), np.float32), normalize=True).train()
    obs = torch.randn(50, 3) * 4 + 2
    before = {n: t.clone() for n, t in normaliser(policy).state_dict().items()}
    chosen, _, _ = policy.get_action_and_value(obs)
    policy.evaluate_actions(obs, chosen)[0].sum().backward()
    policy(obs), policy.get_value(obs), policy.predict(obs.numpy()), policy.acting()(obs)
    assert all(torch.equal(t, before[n]) for n, t in normaliser(policy).state_dict().items())
    policy.update_statistics(obs)
    torch.testing.assert_close(normaliser(policy).mean, obs.mean(0))
    torch.testing.assert_close(normaliser(policy).variance, obs.var(0, correction=0))
    assert normaliser(policy).count == 50


def test_updated_statistics_take_effect_at_the_next_call():
    policy = build(spaces.Box(-np.inf, np.inf, (3,), np.float32), normalize=True)
    obs = torch.randn(50, 3) * 4 + 2
    before = policy(obs)[1]
    policy.update_statistics(obs)
    assert not torch.equal(policy(obs)[1], before)
    seen = read_by_the_trunk(policy, obs, "observation_normalizer")
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(3), rtol=0, atol=1e-4)
    assert torch.equal(policy(obs)[1], policy.slow("value", obs))


def test_statistics_are_those_of_what_the_encoder_gives():
    policy = build(spaces.Box(0, 255, (6, 6, 3), np.uint8), normalize=True)
    images = torch.randint(256, (20, 6, 6, 3), dtype=torch.uint8)
    policy.update_statistics(images)
    torch.testing.assert_close(normaliser(policy).mean, images.movedim(-1, 1).float().mean(0) / 255)


def test_one_normaliser_is_updated_once_however_many_read_it():
    policy = build(spaces.Box(-1, 1, (3,), np.float32), normalize=True)  # actor and critic both read it
    policy.update_statistics(torch.randn(7, 3))
    assert normaliser(policy).count == 7


def test_statistics_are_stored_with_the_policy():
    policy = build(spaces.Box(-1, 1, (3,), np.float32), normalize=True)
    policy.update_statistics(torch.randn(7, 3))
    fresh = build(spaces.Box(-1, 1, (3,), np.float32), normalize=True)
    fresh.load_state_dict(policy.state_dict())
    obs = torch.randn(4, 3)
    assert torch.equal(fresh(obs)[1], policy(obs)[1])


# --- TensorDict --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_a_tensordict_gains_the_standard_keys(name):
    space = OBSERVATIONS[name]()
    policy = build(space)
    obs = policy.prepare(stack(samples(space, 4)))
    if isinstance(space, spaces.Tuple):
        obs = {str(k): {str(i): v for i, v in x.items()} if isinstance(x, dict) else x for k, x in obs.items()}
    expected = policy(policy.prepare(stack(samples(space, 4))))

    def data() -> TensorDict:
        return TensorDict({"observation": obs}, [4])

    torch.testing.assert_close(policy(data())["logits"], expected[0])
    torch.testing.assert_close(policy(data())["state_value"], expected[1])
    torch.testing.assert_close(policy.get_value(data())["state_value"], expected[1])
    acted = policy.get_action_and_value(data())
    assert set(acted.keys()) == {"observation", "action", "action_log_prob", "state_value"}
    log_prob, _, _ = policy.evaluate_actions(acted, acted["action"])
    torch.testing.assert_close(log_prob, acted["action_log_prob"])


def test_leaves_may_lie_at_the_top_of_a_tensordict():
    policy = build(NESTED())
    obs = policy.prepare(stack(samples(NESTED(), 4)))
    expected = policy(obs)
    data = policy(TensorDict(obs, [4]))
    torch.testing.assert_close(data["logits"], expected[0])
