"""No way out of a skill: the corpus of attempts, each refused at its line, or stopped by the operation it misuses."""

import re
import sys

import numpy as np
import pytest

from policysmith.errors import SkillError
from policysmith.skills.modules.module_file import parse_skill_module
from policysmith.skills.sandbox.running import Skill
from policysmith.skills.sandbox.translate import translated

from .escapes import AT_READING, AT_RUNNING, module_of


def cases(table):
    return [pytest.param(text, id=f"{kind}: {text[:60]!r}") for kind, texts in table.items() for text in texts]


def test_the_corpus_is_large_and_has_no_doubles():
    for table in (AT_READING, AT_RUNNING):
        texts = [text for texts in table.values() for text in texts]
        assert len(texts) == len(set(texts))
    assert len(cases(AT_READING)) >= 120 and len(cases(AT_RUNNING)) >= 60


@pytest.mark.parametrize("escape", cases(AT_READING))
def test_it_is_refused_where_it_is_read(escape):
    source, loaded = module_of(escape), set(sys.modules)
    with pytest.raises(SkillError) as told:
        parse_skill_module(source, filename="7.py")
    lines = str(told.value).splitlines()
    assert all(re.match(r"7\.py:\d+  \S", line) for line in lines), lines
    assert not {"os.path", "antigravity"} & (set(sys.modules) - loaded)
    with pytest.raises(SkillError):
        translated(source)


@pytest.mark.parametrize("escape", cases(AT_RUNNING))
def test_it_is_stopped_where_it_runs(escape):
    source = module_of(escape)
    parse_skill_module(source)
    skill = Skill(translated(source, "7.py"))
    skill.execute()
    with pytest.raises((SkillError, TypeError)) as told:
        skill.functions["task_0_reward"](x=np.ones(8))
    place, text = skill.explained(told.value)
    assert re.fullmatch(r"7\.py:\d+: ", place) and len(text) > 10
