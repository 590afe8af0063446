"""The gate: what is wrong with an environment is one sentence before the run begins, and changes nothing of it."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

import policysmith
from policysmith.errors import ConfigError, EnvironmentFailure
from policysmith.training.environments.gate import judge_environment
from policysmith.training.sections import Environment
from tests.training.environments import wrong_environments as wrong
from tests.training.environments.wrong_environments import Plain, known, paying, seeing, telling

FILE = "wrong_environments.py"


def judged(kind, **options):
    with known(kind, **options) as name:
        return judge_environment(Environment(name))


def nothing(found):
    return not (found.faults or found.left_out or found.warnings)


REFUSED = {
    "old reset": (wrong.Old, r"Old\.reset \(.*:\d+\) takes no seed \(gym's old interface\)"),
    "four values": (wrong.FourValues, r"FourValues\.step \(.*\) gave 4 values \(gym's old interface\); gymn"),
    "no info": (wrong.NoInfo, r"NoInfo\.reset \(.*\) gave an array of shape \(3,\) alone"),
    "a seed that is needed": (wrong.SeedNeeded, r"SeedNeeded\.reset \(.*\) can't be called without seed, options"),
    "nothing seen": (seeing(None), r"gave the observation None; the space is Box\(-1\.0, 1\.0, \(3,\), float32\)"),
    "another shape": (seeing(np.zeros(4, np.float32)), r"observation of shape \(4,\); the space is Box\(.*\(3,\)"),
    "text": (seeing("far"), "gave the observation 'far'"),
    "ragged": (seeing([[1.0], [1.0, 2.0]]), r"gave the observation \[\[1\.0\], \[1\.0, 2\.0\]\]"),
    "floats for bytes": (
        seeing(np.full(3, 0.5), spaces.Box(0, 255, (3,), np.uint8)), "of float64, which can't become uint8"
    ),
    "a category too many": (seeing(7, spaces.Discrete(4)), r"the observation with 7; the space is Discrete\(4\)"),
    "a category below": (seeing(0, spaces.Discrete(4, start=1)), "the observation with 0"),
    "a leaf that is missing": (
        seeing({"a": np.zeros(1, np.float32)}, spaces.Dict(a=spaces.Box(0, 1, (1,)), b=spaces.Discrete(2))),
        r"gave no observation\.b; the space has Discrete\(2\) there",
    ),
    "no dict": (seeing(np.zeros(1), spaces.Dict(a=spaces.Box(0, 1, (1,)))), "the space wants a dict"),
    "a tuple too short": (
        seeing((0,), spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)])), r"gave no observation\.1"
    ),
    "no reward": (paying(None), r"Paying\.step \(.*\) gave the reward None; a reward is one number"),
    "a reward of one": (paying(np.array([1.0])), r"gave a reward of shape \(1,\)"),
    "a reward as text": (paying("1.0"), "gave the reward '1.0'"),
    "a mask too long": (telling(np.ones(3, np.int8)), r"in info\['action_mask'\] that does not fit Discrete\(2\)"),
    "a mask that is added": (telling(np.array([0.0, -1e8])), r"numbers from -1e\+08 to 0; it is 1 where"),
    "half a MultiBinary": (telling(np.ones(4, bool), spaces.MultiBinary(4)), r"does not fit MultiBinary\(4\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_a_fault_is_one_sentence_with_class_file_and_line(fault):
    kind, told = REFUSED[fault]
    found = judged(kind)
    assert len(found.faults) == 1 and "\n" not in found.faults[0]
    assert re.search(told, found.faults[0]), found.faults[0]
    assert re.search(rf"{FILE}:\d+\)", found.faults[0]), found.faults[0]


TOLD = {
    "outside": (seeing(np.full(3, 9, np.float32)), "the observation with 9; the space is Box"),
    "float64": (seeing(np.zeros(3)), "the observation of float64; the space is Box"),
    "a list": (seeing([0.0, 0.0, 0.0]), "the observation as a list"),
    "no legal action": (telling(np.zeros(2, bool)), "that leaves no legal action"),
    "another episode": (
        seeing(lambda self: np.float32(np.random.default_rng().random(3))),
        "begins another with the same seed",
    ),
}


@pytest.mark.parametrize("what", TOLD)
def test_what_goes_on_is_told_once(what):
    kind, told = TOLD[what]
    found = judged(kind)
    assert not found.faults and len(found.warnings) == 1
    assert told in found.warnings[0], found.warnings


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["reward", "observation"])
def test_numbers_that_are_not_finite_are_left_to_training(where, number):
    seen = np.array([0, number, 0], np.float32)
    found = judged(paying(number) if where == "reward" else seeing(seen))
    assert not found.faults and len(found.left_out) == 1 and str(number) in found.left_out[0]


@pytest.mark.parametrize("reward", [1, True, 0.5, np.float32(1), np.float64(1), np.int64(2), np.bool_(True),
                                    np.array(1.0), torch.tensor(1.0)])  # fmt: skip
def test_every_single_number_is_a_reward(reward):
    assert nothing(judged(paying(reward)))


@pytest.mark.parametrize(
    ("mask", "space"),
    [
        (np.array([0, 1], np.int8), None),
        ([True, False], None),
        (np.ones(5, bool), spaces.MultiDiscrete([2, 3])),
        ((np.ones(2, bool), np.ones(3, bool)), spaces.MultiDiscrete([2, 3])),
        ({"a": np.array([1, 0])}, spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-1, 1, (1,)))),
        ((np.array([1, 0]), None), spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])),
    ],
    ids=["bytes", "list", "flat", "by variable", "dict", "tuple"],
)
def test_masks_of_every_structure_pass(mask, space):
    assert nothing(judged(telling(mask, space)))


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0",
                                  "FrozenLake-v1", "CliffWalking-v1", "Blackjack-v1"])  # fmt: skip
def test_nothing_is_said_of_known_environments(name):
    found = judge_environment(Environment(name))
    assert nothing(found), found


def test_a_wrapper_that_remembers_is_no_seed_that_does_not_determine():
    assert nothing(judge_environment(Environment("CartPole-v1", wrappers=["NormalizeReward"])))


def test_an_older_version_is_told():
    assert judge_environment(Environment("CartPole-v0")).warnings == [
        "CartPole-v0 is out of date: CartPole-v1 is the latest"
    ]


def test_only_legal_actions_are_taken():
    class Picky(Plain):
        action_space = spaces.Discrete(50)

        def told(self):
            return {"action_mask": np.arange(50) == self.t + 7}

        def step(self, action):
            assert action == self.t + 7
            return super().step(action)

    assert nothing(judged(Picky))


def test_an_exception_is_told_with_the_line_that_raised_it():
    with pytest.raises(EnvironmentFailure) as caught:
        judged(wrong.broken(2))
    lines = Path(wrong.__file__).read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(lines) if "sensor 7" in text)
    assert re.fullmatch(
        rf"Broken\.step raised ValueError: sensor 7 is offline \(.*{FILE}:{line}; before the run began\)",
        str(caught.value),
    )


def test_a_slow_environment_is_judged_by_few_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    taken = []

    class Slow(Plain):
        def step(self, action):
            now[0] += 1.5
            taken.append(action)
            return super().step(action)

    judged(Slow)
    assert len(taken) == 2


def test_generators_and_spaces_are_left_as_they_are():
    class Drawing(Plain):
        action_space = spaces.Discrete(1000)

        def seen(self):
            np.random.random(), torch.rand(1), self.action_space.sample()
            return np.zeros(3, np.float32)

    Drawing.action_space.seed(3)
    before = [np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    judged(Drawing)
    assert [np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()] == before
    assert Drawing.action_space.sample() == spaces.Discrete(1000, seed=3).sample()


# Where it stands

MODEL = {"model": {"type": "mlp", "hidden": [4]}}
TRAINING = {"type": "ppo", "total_steps": 16, "rollout_steps": 8, "minibatches": 1, "loggers": []}


def config(name, **section):
    return {"environment": {"id": name, "num_envs": 2, **section}, **MODEL, "training": TRAINING}


def test_training_is_refused_and_leaves_no_folder(tmp_path):
    with known(wrong.FourValues) as name, pytest.raises(ConfigError, match=r"environment\.id: FourValues\.step"):
        policysmith.train(config(name), output=tmp_path / "run", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_place_in_the_file_is_told(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: {type: mlp}\nenvironment:\n  id: Wrong-v0\ntraining: {type: ppo, total_steps: 16}\n")
    with known(wrong.FourValues), pytest.raises(ConfigError, match=r"mine\.yaml:3:7  environment\.id: FourValues"):
        policysmith.train(file, progress=False)


def test_what_is_told_is_a_note_of_the_run():
    with known(TOLD["outside"][0]) as name:
        notes = policysmith.train(config(name), progress=False, evaluate=False).notes
    assert len(notes) == 1 and "the observation with 9" in notes[0]


@pytest.mark.parametrize("verb", ["evaluate", "record"])
def test_evaluation_and_recording_are_refused(verb, tmp_path):
    with known(Plain) as name:
        policy = policysmith.build(config(name))
    calls = {
        "evaluate": lambda: policysmith.evaluate(policy, episodes=1),
        "record": lambda: policysmith.api.record(policy, tmp_path / "data", 1),
    }
    with known(paying(None)), pytest.raises(ConfigError, match="gave the reward None"):
        calls[verb]()
    assert list(tmp_path.iterdir()) == []


def test_the_gate_can_be_switched_off():
    made = []

    class Counted(Plain):
        def __init__(self):
            made.append(self)

    with known(Counted) as name:
        policysmith.train(config(name, check=False), progress=False, evaluate=False)
        without = len(made)
        made.clear()
        policysmith.train(config(name), progress=False, evaluate=False)
    assert len(made) == without + 1


def test_the_gate_changes_no_result():
    def returns(**section):
        return policysmith.train(config("CartPole-v1", **section), progress=False, evaluate=False).policy.state_dict()

    with_gate, without = returns(), returns(check=False)
    assert all(torch.equal(with_gate[key], without[key]) for key in without)
