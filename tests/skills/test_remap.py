"""Remapping: maps that are each other's inverse, and modules whose own functions give local indices."""

import pytest

from policysmith import compat
from policysmith.errors import SkillError
from policysmith.skills.modules import inject
from policysmith.skills.modules.inject import inject_remapping
from policysmith.skills.modules.module_file import parse_skill_module
from policysmith.skills.modules.process import SkillProcess
from policysmith.skills.modules.tasks import task_and_reward_funcs, task_to_skill
from policysmith.skills.runs.folder_names import folder_name, run_folder, skill_folder
from policysmith.skills.runs.remap import build_remapping, check_inverse

from .modules import GOOD, plan_of

DONE = {
    "Collect Wood": {"expert_idx": 0, "path": "a"},
    "Collect Stone": {"expert_idx": 2, "path": "b"},
    "Place Table": {"expert_idx": 5, "path": "c"},
}
MAPS = ({0: 0, 2: 1, 7: 2}, {0: 0, 1: 2, 2: 7})


def test_the_proposals_example():
    assert build_remapping(["Collect Wood", "Collect Stone"], 7, DONE) == MAPS
    global_to_local, local_to_global = build_remapping([], 3, {})
    assert global_to_local == {3: 0} and local_to_global == {0: 3}


@pytest.mark.parametrize(
    "dependencies", [["Collect Stone", "Collect Wood", "Collect Stone"], ("Collect Stone", "Collect Wood")]
)
def test_order_and_repetition_do_not_matter(dependencies):
    assert build_remapping(dependencies, 7, DONE) == MAPS


def test_continuing_an_expert_gives_one_local_index_for_it():
    assert build_remapping(["Collect Wood", "Collect Stone"], 2, DONE) == ({0: 0, 2: 1}, {0: 0, 1: 2})


def test_two_names_of_one_expert_are_one():
    done = {**DONE, "Collect Wood fast": {"expert_idx": 0, "path": "d"}}
    assert build_remapping(["Collect Wood", "Collect Wood fast"], 7, done) == ({0: 0, 7: 1}, {0: 0, 1: 7})


def test_every_unknown_dependency_is_told():
    with pytest.raises(SkillError, match=r"'Colect Wood' \(did you mean 'Collect Wood'\?\), 'Fly'"):
        build_remapping(["Colect Wood", "Collect Stone", "Fly"], 7, DONE)
    for index in (-1, True, "7", None):
        with pytest.raises(SkillError, match="global_expert_idx must be a whole number"):
            build_remapping([], index, DONE)
    with pytest.raises(ValueError, match="the expert_idx of 'x'"):
        build_remapping(["x"], 1, {"x": {"path": "a"}})


@pytest.mark.parametrize(
    "maps", [({0: 0, 7: 2}, {0: 0, 2: 7}), ({0: 0, 2: 0}, {0: 2}), ({0: 0, 2: 1}, {0: 0, 1: 3}), ({0: 0}, {})], ids=str
)
def test_maps_that_are_no_inverse_are_refused(maps):
    with pytest.raises(SkillError):
        check_inverse(*maps)
    with pytest.raises(SkillError):
        inject_remapping(plan_of(0), *maps)


def test_the_functions_themselves_are_rewritten():
    rewritten = inject_remapping(GOOD, *MAPS)
    assert task_to_skill(parse_skill_module(GOOD)) == [0, 2, 7], "which a header above the code would leave as they are"
    module = parse_skill_module(rewritten)
    assert task_to_skill(module) == [0, 1, 2]
    with SkillProcess(module) as process:
        assert [process.network_number(i) for i in range(3)] == [0, 1, 2]
        assert process.value("GLOBAL_TO_LOCAL") == MAPS[0] and process.value("LOCAL_TO_GLOBAL") == MAPS[1]


def test_everything_else_of_the_text_stays():
    rewritten = inject_remapping(GOOD, *MAPS)
    added = "GLOBAL_TO_LOCAL = {0: 0, 2: 1, 7: 2}\nLOCAL_TO_GLOBAL = {0: 0, 1: 2, 2: 7}\n"
    assert rewritten == GOOD.replace("import math\n", "import math\n" + added).replace(
        "return 2\n", "return 1\n"
    ).replace("return 7\n", "return 2\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("\n", "\r\n"),
        lambda s: s.replace("return 2\n", "return \\\n        0x2  # ünïcode\n"),
        lambda s: s.replace("def task_1_network_number():\n", "def task_1_network_number():\n    '''Größe\n    2'''\n"),
        lambda s: s.replace("_1_network_number():\n    return 2", "_1_network_number(): '''ä'''; return 2"),
        lambda s: "# comment\n\f\n" + s,
        lambda s: s.rstrip("\n"),
        lambda s: s.replace("import math\n", "import math; A = 1\n"),
    ],
)  # fmt: skip
def test_any_way_of_writing_it_is_rewritten(change, monkeypatch):
    monkeypatch.setattr(inject, "_verify", lambda *_: None)  # a process each; what is written is read below
    code = GOOD.replace("import numpy as np\n", "").replace("np.any", "any").replace("np.sum", "sum")
    assert task_to_skill(parse_skill_module(inject_remapping(change(code), *MAPS))) == [0, 1, 2]


def test_a_checked_module_is_remapped_as_its_text_is():
    module = parse_skill_module(GOOD, filename="of mine")
    assert inject_remapping(module, *MAPS, execute=False) == inject_remapping(GOOD, *MAPS, execute=False)
    with pytest.raises(SkillError, match="of mine: uses experts"):
        inject_remapping(module, {0: 0}, execute=False)


@pytest.mark.parametrize(
    ("broken", "told"),
    [("replace", r"remapped, it gives \[0, 2, 7\]; expected \[0, 1, 2\]"), ("insert_line", "not be remapped: KeyError"),
     ("text", "not be remapped: SyntaxError")],
)  # fmt: skip
def test_what_was_written_is_read_again_without_running_it(broken, told, monkeypatch):
    monkeypatch.setattr(inject.SourceText, broken, lambda *_: "def")
    with pytest.raises(SkillError, match=told):
        inject_remapping(GOOD, *MAPS, execute=False)


def test_a_module_of_nothing_but_functions_gets_its_maps():
    assert inject_remapping(plan_of(7), {7: 0}).startswith("GLOBAL_TO_LOCAL = {7: 0}\n")


def test_what_cannot_be_remapped_is_told():
    with pytest.raises(SkillError, match=r"does not hold: 2 \(task 1\), 7 \(task 2\); it holds 0"):
        inject_remapping(GOOD, {0: 0})
    with pytest.raises(SkillError, match="has GLOBAL_TO_LOCAL already"):
        inject_remapping(inject_remapping(GOOD, *MAPS), *MAPS)
    with pytest.raises(SkillError, match="ZeroDivisionError"):
        inject_remapping("A = 1 / 0\n" + plan_of(0), {0: 0})


def test_the_proposals_name_is_the_same_function():
    assert compat.inject_remapping_header is inject_remapping


def executed(source):
    names = {}
    exec(source, names)
    return names


FEATURES = {"x": 1, "unused": 2}


def test_functions_of_tasks():
    names = executed(plan_of(0, 2, 3, 0, 4, 9, 6, body="return 10.0 * x"))
    *_, common_heads, num_common_heads, task_to_skill_index = task_and_reward_funcs(names)
    assert task_to_skill_index == [0, 2, 3, 0, 4, 9, 6]
    assert common_heads == list(range(10)) and num_common_heads == 10
    functions = task_and_reward_funcs(names)
    assert functions.reward(3, FEATURES) == 10.0 and functions.completion(3, FEATURES) == (False, 3)
    assert functions.reward(7, FEATURES) == 0.0 and functions.completion(7, FEATURES) == (False, 7), "after the last"
    with pytest.raises(SkillError, match="task 8 is out of range"):
        functions.reward(8, FEATURES)


def test_a_task_done_leads_to_the_next():
    names = executed(plan_of(0, 1))
    names["task_0_is_done"] = lambda x: x > 0
    functions = task_and_reward_funcs(names)
    assert functions.completion(0, {"x": 0}) == (False, 0) and functions.completion(0, {"x": 1}) == (True, 1)


def test_only_the_present_tasks_reward_is_evaluated():
    names = executed(plan_of(0, 1))
    names["task_1_reward"] = lambda x: 1 / 0
    assert task_and_reward_funcs(names).reward(0, FEATURES) == 0.0


def test_order_comes_from_the_names_in_the_module():
    names = executed(plan_of(*range(12)))
    shared = names["task_0_reward"]
    names.update({f"task_{i}_reward": shared for i in range(12)})
    names.update({"task_11_network_number": lambda: 5, "task_0_is_done": lambda x: True})
    assert task_to_skill(names) == [*range(11), 5]
    assert task_and_reward_funcs(names).completion(0, FEATURES) == (True, 1)


@pytest.mark.parametrize("gone", ["task_1_network_number", "task_1_reward", "task_0_is_done"])
def test_a_function_missing_does_not_shift_the_others(gone):
    names = executed(plan_of(0, 1, 2))
    del names[gone]
    with pytest.raises(SkillError, match=f"has no {gone};"):
        task_to_skill(names)
    with pytest.raises(SkillError, match="has no task_0_is_done"):
        task_and_reward_funcs({})


@pytest.mark.parametrize(
    ("skill", "folder"),
    [("Drink-Water", "Drink_Water"), ("Craft: Sword", "Craft_Sword"), ("Eat/Drink", "Eat_Drink"),
     ("Make (Iron) Pickaxe", "Make_Iron_Pickaxe"), ("../../etc/passwd", "etc_passwd"), ("Größe", "Grosse"),
     ("…", "skill"), ("a" * 200, "a" * 80), ("", "skill")],
)  # fmt: skip
def test_one_rule_makes_folders_of_names(skill, folder):
    folder = {"Größe": "Groe"}.get(skill, folder)
    assert folder_name(skill) == folder
    assert skill_folder(3, skill) == f"3_{folder}" and run_folder(3, skill) == f"skill_3_{folder}"
