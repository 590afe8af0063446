"""A skills file: what it says is checked whole before anything is trained, and its code is never executed."""

import re
from pathlib import Path

import pytest
import yaml

from policysmith.config.sizes import memory_bytes
from policysmith.errors import ConfigError
from policysmith.skills.scheduling.skills_file import read_skills_file

from .scheduling import CODE, REGISTRY, World


@pytest.fixture
def write(tmp_path):
    """Writes a skills file whose skills have code, and reads it."""

    def read(text, *overrides, **codes):
        (tmp_path / "good.py").write_text(CODE)
        for name, code in codes.items():
            (tmp_path / f"{name}.py").write_text(code)
        file = tmp_path / "skills.yaml"
        training = "" if text.startswith("training:") else "training: {type: fake_training}\n"
        file.write_text(f"environment: fake_environment\n{training}{text}")
        return read_skills_file(file, overrides, registry=REGISTRY)

    return read


def problems(write, text, *overrides, **codes):
    with pytest.raises(ConfigError) as caught:
        write(text, *overrides, **codes)
    return [re.sub(r"/\S*/", "", str(problem)) for problem in caught.value.problems]


def test_what_a_file_says_is_what_workers_get(write, tmp_path):
    file = write(
        "seed: 3\nmodel: {layer_width: 16}\nscheduler: {parallel: 2, memory: 2GB}\nskills:\n"
        "  a: {code: good.py, resources: {cpus: 2}}\n"
        "  b: {code: good.py, plan: [{skill: a, count: 4}, b], success: 0.9, steps: 70, seconds: 60,\n"
        "      train: [a], training: {pace: 0.5}, resources: {memory: 1GiB}}\n",
        "seed=4",
    )
    assert file.needs == {"a": [], "b": ["a"]} and file.library == tmp_path / "library"
    assert file.steps("a") == [{"skill": "a"}] and file.steps("b") == [{"skill": "a", "count": 4}, {"skill": "b"}]
    config = file.worker_config("b")
    assert (config["seed"], config["success"], config["seconds"]) == (4, 0.9, 60)
    assert config["environment"] == {"type": "fake_environment", "size": 3} and config["model"] == {"layer_width": 16}
    assert (config["training"]["total_steps"], config["training"]["pace"]) == (70, 0.5)
    assert file.worker_config("a")["training"]["total_steps"] == 10
    assert yaml.safe_load(yaml.safe_dump(config)) == config
    assert (file.resources("a").cpus, file.resources("a").memory_bytes) == (2, 2_000_000_000)
    assert file.resources("b").memory_bytes == 1 << 30 and file.scheduler.launcher.type == "local"


def test_every_problem_is_told_at_once_with_its_place(write):
    found = problems(
        write,
        "scheduler: {paralel: 2, memory: much}\nskils: {}\nmodel: {layer_widht: 3}\nskills:\n"
        "  Pick_Up: {code: good.py, succes: 0.5}\n"
        "  Open: {code: none.py, plan: [Pick_Upp, Open], train: [Close], priority: high}\n"
        "  Walk: {code: good.py, plan: [Pick_Up, {skill: Walk, count: 0}], after: [Open]}\n"
        "  Run: {code: good.py, plan: [Walk]}\n",
    )
    assert found == [
        "skills.yaml:3:13  scheduler.paralel: unknown option of 'scheduler' (did you mean 'parallel'?)",
        "skills.yaml:3:33  scheduler.memory: expected a size of memory such as 4GB, 512MiB or a number of bytes, "
        "found 'much'",
        "skills.yaml:4:1  skils: unknown section (did you mean 'skills'?); there are: environment, skills, format, "
        "seed, library, model, training, scheduler",
        "skills.yaml:5:9  model.layer_widht: unknown option of 'moe' (did you mean 'layer_width'?)",
        "skills.yaml:7:28  skills.Pick_Up.succes: unknown option of 'skill' (did you mean 'success'?)",
        "skills.yaml:8:16  skills.Open.code: cannot read none.py: No such file or directory",
        "skills.yaml:8:32  skills.Open.plan.0: there is no skill 'Pick_Upp' (did you mean 'Pick_Up'?); "
        "every skill of a plan has an entry under skills",
        "skills.yaml:8:57  skills.Open.train.0: 'Close' is to learn too, but is no other skill of the plan",
        "skills.yaml:8:75  skills.Open.priority: expected an integer, found 'high'",
        "skills.yaml:9:62  skills.Walk.plan.1.count: expected a whole number ≥ 1, found 0",
        "skills.yaml:10:30  skills.Run.plan: 'Run' is not in its own plan: it would never act, and learn nothing",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scheduler: {memory: much}\n", "scheduler.memory: expected a size of memory such as 4GB, 512MiB or a number"),
        ("scheduler: {launcher: locla}\n", "unknown launcher 'locla' (did you mean 'local'?)"),
        ("scheduler: {launcher: {type: local, thread: 2}}\n", "unknown option of 'local' (did you mean 'threads'?)"),
        ("scheduler: {parallel: 0}\n", "scheduler.parallel: must be > 0, found 0"),
        ("model: {type: mlp}\n", "model: expected options of the model 'moe', found {'type': 'mlp'}"),
        ("model: {num_tasks: 3}\n", "model.num_tasks: which experts there are follows from each skill's plan"),
        ("training: ppo\n", "training.type: 'ppo' trains no skills; types that do: fake_training"),
        ("training: {type: ppo, loggers: [ghost]}\n", "'ppo' trains no skills; types that do: fake_training"),
        ("format: 2\n", "format: format 2 is newer than this policysmith understands (1)"),
        ("seed: -1\n", "seed: must be ≥ 0, found -1"),
    ],
)
def test_a_wrong_section_is_told(write, text, message):
    (found,) = problems(write, text + "skills: {a: {code: good.py}}\n")
    assert message in found


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("training: {pase: 1}", "skills.a.training.pase: unknown option of 'fake_training' (did you mean 'pace'?)"),
        ("steps: 0", "skills.a.steps: must be > 0, found 0"),
        ("success: 1.5", "skills.a.success: must be ≤ 1, found 1.5"),
        ("resources: {memory: 3 apples}", "skills.a.resources.memory: expected a size of memory"),
        ("plan: [{skill: a, cuont: 2}]", "skills.a.plan.0: a step has skill and count, found 'cuont'"),
        ("after: [a]", "skills.a.after.0: 'a' cannot come after itself"),
    ],
)
def test_a_wrong_skill_is_told(write, said, message):
    (found,) = problems(write, f"skills: {{a: {{code: good.py, {said}}}}}\n")
    assert message in found


def test_a_newer_format_is_told_beside_what_it_may_explain(write):
    found = problems(write, "format: 2\nwhatever: 3\nskills: {a: {code: good.py}}\n")
    assert "format 2 is newer" in found[0] and "whatever: unknown section" in found[1] and len(found) == 2


def test_the_example_is_right():
    """With the real types, and what they are where the file names none."""
    file = read_skills_file(Path(__file__).parents[2] / "examples" / "doorkey" / "skills.yaml")
    assert file.needs["Reach_Goal"] == ["Pick_Up_Key", "Open_Door"]
    config = file.worker_config("Pick_Up_Key")
    assert config["environment"]["type"] == "minigrid" and config["training"]["type"] == "skill_ppo"
    assert config["training"]["total_steps"] == 500_000


def test_an_environment_that_cannot_be_is_told(tmp_path):
    (tmp_path / "good.py").write_text(CODE)
    data = {"environment": {"type": "minigrid", "id": "DoorKey"}, "training": 3, "skills": {"a": {"code": "good.py"}}}
    file = tmp_path / "skills.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError) as caught:
        read_skills_file(file)
    said = [problem.message for problem in caught.value.problems]
    assert said == ["expected a mapping, found 3"], said
    file.write_text(yaml.safe_dump({**data, "training": {}}))
    with pytest.raises(ConfigError, match="environment: 'DoorKey' is no environment of MiniGrid"):
        read_skills_file(file)


def test_a_circle_is_named(write):
    (found,) = problems(
        write,
        "skills:\n  a: {code: good.py, after: [c]}\n  b: {code: good.py, plan: [a, b]}\n"
        "  c: {code: good.py, plan: [b, c]}\n",
    )
    assert "these need each other in a circle: " in found
    circle = found.rpartition(": ")[2].split(" → ")
    assert circle[0] == circle[-1] and set(circle) == {"a", "b", "c"}


def test_code_is_checked_where_it_is_wrong(write):
    bad = CODE.replace("return x > n", "return open(x)").replace(
        "task_reward(x):\n    return x", "task_reward(z):\n    return z"
    )
    found = problems(write, "skills: {a: {code: bad.py}, b: {code: torn.py}, c: {code: half.py}}\n", bad=bad,
                     torn="def task_is_done(x:\n", half="def task_is_done(x): return True\n")  # fmt: skip
    assert found[0] == "skills.yaml:3:59  skills.c.code: half.py defines no task_reward"
    assert [line.partition(":")[0] for line in found[1:]] == ["bad.py", "bad.py", "torn.py"]
    assert found[1].startswith("bad.py:2  skills.a.code: ") and "open" in found[1]
    assert found[2].startswith("bad.py:5  skills.a.code: task_reward reads 'z'; the environment offers x, y")
    assert found[3].startswith("torn.py:1  skills.b.code: is not Python: ")


def test_a_count_that_the_code_does_not_take_is_told(write):
    code = "def task_is_done(x): return x > 1\ndef task_reward(x): return x\n"
    (found,) = problems(write, "skills: {a: {code: a.py, plan: [{skill: a, count: 3}]}}\n", a=code)
    assert "skills.a.plan: the plan wants 3 of 'a', but its task_is_done has no argument 'n'" in found


def test_code_is_not_executed(write, tmp_path):
    code = f"import math\nLIMIT = math.sqrt(4)\n{CODE}"
    assert write("skills: {a: {code: a.py}}\n", a=code).codes["a"] == code
    assert problems(write, "skills: {a: {code: a.py}}\n", a=f"open({str(tmp_path / 'x')!r}, 'w')\n{CODE}")
    assert not (tmp_path / "x").exists()


def test_the_library_can_be_another(write, tmp_path):
    world = World(tmp_path, {"a": {}})
    file = read_skills_file(tmp_path / "skills.yaml", library=tmp_path / "other", registry=REGISTRY)
    assert file.library == tmp_path / "other" and world.read().library == tmp_path / "library"


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("512 MiB", 512 << 20), ("1.5kB", 1500), ("1tb", 10**12), (17, 17), ("20B", 20)],
)
def test_sizes_of_memory(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["4", "GB", "-1GB", "0GB", 0, True, "4 gigabytes", "1iB B"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="expected a size of memory"):
        memory_bytes(text)
