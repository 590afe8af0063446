"""Modules made from plans: names changed by the syntax tree, counts set however the signature is written."""

import pytest

from policysmith.errors import SkillError
from policysmith.skills.modules.generate import PlanStep, generate_module, generated_module
from policysmith.skills.modules.inject import inject_remapping
from policysmith.skills.modules.module_file import parse_skill_module
from policysmith.skills.modules.process import SkillProcess
from policysmith.skills.modules.tasks import task_to_skill

WOOD = """\
import numpy as np

GOAL = 2


def share(x):
    return x / GOAL  # of the goal


def task_is_done(inventory, n=1):
    return inventory["wood"] >= n  # enough


def task_reward(inventory_diff):
    return share(inventory_diff["wood"])


def task_network_number():
    return 99
"""
TABLE = WOOD.replace("GOAL = 2", "GOAL = 4").replace('"wood"', '"table"')
CODES = {"Collect Wood": WOOD, "Place-Table": TABLE}
EXPERTS = {"Collect Wood": 0, "Place-Table": 7}


def test_a_plan_becomes_a_module():
    plan = [PlanStep("Collect Wood", 5), PlanStep("Place-Table"), PlanStep("Collect Wood", 12)]
    source = generate_module(plan, CODES, EXPERTS)
    assert source.count("# enough") == 3 and source.count("import numpy as np") == 1 and "99" not in source
    module = parse_skill_module(inject_remapping(source, {0: 0, 7: 1}))
    assert task_to_skill(module) == [0, 1, 0]
    with SkillProcess(module) as process:
        assert [process.is_done(0, {"inventory": {"wood": n}}) for n in (4, 5)] == [False, True]
        assert [process.is_done(1, {"inventory": {"table": n}}) for n in (0, 1)] == [False, True]
        assert [process.is_done(2, {"inventory": {"wood": n}}) for n in (11, 12)] == [False, True]
        assert process.reward(0, {"inventory_diff": {"wood": 1}}) == 0.5
        assert process.reward(1, {"inventory_diff": {"table": 1}}) == 0.25, "each skill has its own GOAL and share"


@pytest.mark.parametrize(
    "signature",
    ["inventory, n=1", "inventory, n: int = 1", "inventory, n = -1", "inventory, n", "inventory, n: int",
     "inventory,\n        n=1,\n", "*, n=1, inventory", "*, n, inventory", "n=1, inventory=None", "inventory, n=True"],
)  # fmt: skip
def test_a_count_is_set_however_the_signature_is_written(signature):
    code = WOOD.replace("def task_is_done(inventory, n=1)", f"def task_is_done({signature})")
    source = generate_module([PlanStep("Collect Wood", 3)], {"Collect Wood": code}, EXPERTS)
    names = {}
    exec(source, names)
    assert [names["task_0_is_done"](inventory={"wood": n}) for n in (2, 3)] == [False, True]


def test_a_count_as_the_only_argument_is_set():
    code = WOOD.replace("def task_is_done(inventory, n=1)", "def task_is_done(n=1)").replace('inventory["wood"]', "4")
    source = generate_module([PlanStep("Collect Wood", 3)], {"Collect Wood": code}, EXPERTS)
    assert "def task_0_is_done(n=3):" in source


@pytest.mark.parametrize(
    ("plan", "change", "told"),
    [
        ([], ("", ""), "the plan has no step"),
        ([PlanStep("Colect Wood")], ("", ""), r"did you mean 'Collect Wood'"),
        ([PlanStep("Collect Wood", 3)], ("inventory, n=1", "inventory, m=1"), "has no argument 'n'"),
        ([PlanStep("Collect Wood", 3)], ("inventory, n=1", "n, inventory"), "must come last, or have a default"),
        ([PlanStep("Collect Wood", 0)], ("", ""), "whole number ≥ 1, found 0"),
        ([PlanStep("Collect Wood")], ("task_reward", "reward"), "has no task_reward"),
        ([PlanStep("Collect Wood")], ("GOAL = 2", "GOAL = open('f')"), "'open' is not a function"),
        ([PlanStep("Collect Wood")], ("def ", "def def "), "is not Python"),
        ([PlanStep("Collect Wood")], ("def share", "@abs\ndef share"), "line 7 of .*decorator"),
        ([PlanStep("Collect Wood")], ("GOAL = 2", "GOAL = 2\nif GOAL: pass"), "line 4 of .* if is not allowed"),
        ([PlanStep("Collect Wood")], ("GOAL = 2", "GOAL, B = 2, 3"), "line 3 of .* assign is not allowed"),
        ([PlanStep("Collect Wood"), PlanStep("Place-Table")], ("numpy as np", "math as np"), "'np' is one module"),
        ([PlanStep("Collect Wood"), PlanStep("Place-Table")], ("share(x)", "share(GOAL)"), "'GOAL' of 'Collect W"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_told(plan, change, told):
    codes = {**CODES, "Collect Wood": WOOD.replace(*change) if change[0] else WOOD}
    with pytest.raises(SkillError, match=told):
        generate_module(plan, codes, EXPERTS)


def test_the_module_of_a_plan_reads_what_the_environment_offers():
    steps, codes, experts = [PlanStep("Wood")], {"Wood": WOOD}, {"Wood": 0}
    module = generated_module(steps, codes, experts, ["inventory", "inventory_diff"])
    assert module.source == generate_module(steps, codes, experts)
    assert module.features == {"inventory", "inventory_diff"}
    with pytest.raises(SkillError, match="task_0_reward reads 'inventory_diff'"):
        generated_module(steps, codes, experts, ["inventory"])
