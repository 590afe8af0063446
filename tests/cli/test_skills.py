"""`policysmith skills`: what is in a library of skills, told and looked after."""

import json

import numpy as np
import pytest
import typer

from policysmith.cli import app
from policysmith.skills import SkillLibrary, load_expert
from tests.reference.flowrl_experts import flat, random_params
from tests.skills.library_workers import finished, prepared, trained, value_of

GLOBAL = ["--plugin", "--debug"]
SURFACE = {
    "ls": ["--library", "--json", *GLOBAL],
    "show": ["SKILL[@VERSION]", "--library", "--json", *GLOBAL],
    "history": ["SKILL", "--library", "--json", *GLOBAL],
    "graph": ["SKILL", "--output", "--library", "--json", *GLOBAL],
    "merge": ["SKILL[@VERSION]", "SKILL[@VERSION]", "--library", *GLOBAL],
    "prune": ["SKILL", "--older-than", "--dry-run", "--library", "--json", *GLOBAL],
    "rollback": ["SKILL[@VERSION]", "--library", *GLOBAL],
}


@pytest.fixture
def library(tmp_path):
    """Wood, of which a second version beside the head has a name; Table and Fire, which need it."""
    library = SkillLibrary(tmp_path / "library")
    trained(library, "Wood", 1.0, frames=1000, scores={"Wood": 0.5})
    runs = [prepared(library, name, ["Wood"], train=["Wood"]) for name in ("Table", "Fire")]
    for run, value in zip(runs, (3.0, 5.0), strict=True):
        finished(run, dict.fromkeys(run.trained, value), 10 * int(value), {"Wood": value / 10})
        library.process(run.run_folder, head="keep-both")
    return library


def the_branch(library):
    return next(record for record in library.versions("Wood") if record.branches)


def test_commands_and_options_are_frozen():
    """A change here is a line in the CHANGELOG."""
    group = typer.main.get_command(app).commands["skills"]
    names = {
        name: [p.metavar if p.param_type_name == "argument" else p.opts[0] for p in command.params]
        for name, command in group.commands.items()
        if name in SURFACE  # `train` is told of where it is tested
    }
    assert names == SURFACE


@pytest.mark.parametrize("name", SURFACE)
def test_every_command_explains_its_options_and_gives_examples(run, name):
    result = run("skills", name, "--help")
    assert result.exit_code == 0
    assert f"\nExamples:\n  policysmith skills {name}" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_the_list_is_a_table(run, library):
    lines = run("skills", "ls").stdout.splitlines()
    assert lines[0].split() == ["expert", "skill", "head", "frames", "score", "versions", "needs"]
    head = library.skill("Wood").head[:12]
    assert lines[1].split() == ["0", "Wood", head, "1,030", "0.3", "3"]
    assert lines[2].split()[1::4] == ["Table", "Wood"] and lines[-1] == "3 skills"
    data = json.loads(run("skills", "ls", "--json").stdout)["skills"]
    assert [skill["name"] for skill in data] == ["Wood", "Table", "Fire"] and data[2]["dependencies"] == ["Wood"]


def test_show_tells_all_of_a_version(run, library):
    text = run("skills", "show", "Fire").stdout
    assert library.version("Fire").version in text and "Wood 0.5" in text and "needs     Wood" in text
    branch = the_branch(library)
    data = json.loads(run("skills", "show", f"Wood@{branch.branches[0]}", "--json").stdout)
    assert data["version"] == branch.version and data["scores"] == {"Wood": 0.5} and not data["is_head"]


def test_history_tells_versions_and_heads(run, library):
    text = run("skills", "history", "Wood").stdout
    assert "3 versions" in text and text.count("keep-both") == 1 and "the first" in text
    data = json.loads(run("skills", "history", "Wood", "--json").stdout)
    assert [move["reason"] for move in data["heads"]] == ["the first", "keep-both"]
    assert [version["frames"] for version in data["versions"]] == [1000, 1030, 1050]


def test_the_graph_shows_who_needs_whom(run, library):
    lines = [line.strip("│├└─ ") for line in run("skills", "graph").stdout.splitlines()]
    assert lines == ["skills", "Wood", "Table", "Fire"]
    edges = json.loads(run("skills", "graph", "--json").stdout)["edges"]
    assert edges == [["Wood", "Table"], ["Wood", "Fire"]]
    assert run("skills", "graph", "--output", "skills.mmd").exit_code == 0
    mermaid = (library.root.parent / "skills.mmd").read_text()
    assert mermaid == 'flowchart TD\n  n0["Wood"]\n  n1["Table"]\n  n2["Fire"]\n  n0 --> n1\n  n0 --> n2\n'
    assert "written as .mmd or .md" in run("skills", "graph", "--output", "skills.svg").stderr


def test_the_graph_of_a_skill_shows_which_version_comes_from_which(run, library):
    lines = run("skills", "graph", "Wood").stdout.splitlines()
    first, head = (move.version[:12] for move in library.history("Wood"))
    assert first in lines[1] and f"{head}  1,030 frames  score 0.3  head" in lines[2]
    assert len(lines) == 4 and the_branch(library).branches[0] in lines[3]


def test_versions_are_merged(run, library):
    result = run("skills", "merge", "Wood", f"Wood@{the_branch(library).short}")
    assert result.exit_code == 0 and "1,080 frames" in result.stdout and value_of(library, "Wood") == 4.0
    assert "different experts" in run("skills", "merge", "Wood", "Table").stderr


def test_the_head_goes_back(run, library):
    assert run("skills", "rollback", "Wood").exit_code == 0 and value_of(library, "Wood") == 1.0
    run("skills", "rollback", f"Wood@{the_branch(library).branches[0]}")
    assert value_of(library, "Wood") == 5.0
    assert "has had no other head" in run("skills", "rollback", "Fire").stderr


def test_pruning_says_first_what_would_go(run, library):
    first = trained(library, "Table", 8.0, scores={"Table": 0.1})["Table"].version
    second = trained(library, "Table", 9.0, scores={"Table": 0.2})["Table"].version
    assert len(library.versions("Table")) == 3
    assert run("skills", "prune").stdout == "removed   nothing\n", "young ones are spared"
    planned = json.loads(run("skills", "prune", "--older-than", 0, "--dry-run", "--json").stdout)
    assert not planned["removed"] and len(library.versions("Table")) == 3
    gone = [version["version"] for version in planned["versions"]]
    assert len(gone) == 1 and second not in gone and gone[0][:12] in run("skills", "prune", "--older-than", 0).stdout
    assert {record.version for record in library.versions("Table")} == {first, second, *gone[1:]}


@pytest.mark.parametrize("words", [["ls"], ["show", "Wood"], ["graph"], ["prune"], ["rollback", "Wood"]])
def test_where_there_is_no_library_nothing_is_made(run, words, tmp_path):
    result = run("skills", *words, "--library", "elsewhere")
    assert result.exit_code == 1 and "elsewhere: is no library of skills" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_skill_that_is_not_there_is_told(run, library):
    for name in ("show", "history", "graph", "rollback"):
        assert "did you mean 'Table'?" in run("skills", name, "Tabel").stderr


class TestImport:
    """`policysmith import flowrl`: experts of the original become a library's, or one policy."""

    @pytest.fixture
    def files(self, tmp_path):
        """Three experts, of a run that trained the last; → parameters."""
        params = random_params(np.random.default_rng(0), 3, 5, 4)
        np.savez(tmp_path / "experts.npz", **flat(params))
        said = {"local_to_global": {"0": 0, "1": 2, "2": 7}, "initial_frame_counts": {"2": 50},
                "skill_name": "Axe", "global_expert_idx": 7, "dependencies": ["Wood", "Stone"]}  # fmt: skip
        (tmp_path / "remap.json").write_text(json.dumps(said))
        return params["params"]["params"]

    def test_experts_come_into_a_library_under_their_numbers(self, run, files):
        words = ["import", "flowrl", "experts.npz", "--library", "library", "--remap", "remap.json"]
        result = run(*words, "--skill", "0=Wood", "--skill", "2=Stone")
        assert result.exit_code == 0, result.stderr
        library = SkillLibrary("library")
        found = [(skill.name, skill.expert, skill.frames) for skill in library.skills()]
        assert found == [("Wood", 0, 0), ("Stone", 2, 50), ("Axe", 7, 0)]
        stone = load_expert(library.folder_of("Stone"))
        kernel = files["actor_networks_1"]["layers_0"]["kernel"]
        np.testing.assert_array_equal(stone.weights["actor_network.layers_0.weight"].numpy(), kernel.T)
        assert library.version("Stone").status == "imported" and "2  Stone" in result.stdout
        assert run(*words, "--skill", "0=Wood", "--skill", "2=Stone").exit_code == 0, "again changes nothing"
        assert [skill.versions for skill in library.skills()] == [1, 1, 1]

    def test_an_expert_without_a_name_is_told_before_any_is_taken(self, run, files, tmp_path):
        words = ["import", "flowrl", "experts.npz", "--library", "library", "--remap", "remap.json"]
        result = run(*words, "--skill", "0=Wood")
        assert result.exit_code == 1 and "whose experts 2 are" in result.stderr and "Wood, Stone" in result.stderr
        assert "not there: 5" in run(*words, "--skill", "5=Wood").stderr
        assert not (tmp_path / "library").exists()

    def test_experts_become_one_policy(self, run, files):
        result = run("import", "flowrl", "experts.npz", "--output", "policy", "--activation", "relu")
        assert result.exit_code == 0, result.stderr
        assert "moe: layer_width 8, num_layers 4, activation relu" in result.stdout

    @pytest.mark.parametrize("words", [["experts.npz"], ["experts.npz", "--library", "l", "--skill", "Wood"]])
    def test_a_place_is_needed_and_skills_are_numbered(self, run, files, words):
        assert run("import", "flowrl", *words).exit_code == 2

    def test_other_dialects_have_no_skills(self, run):
        for option in (["--library", "l"], ["--skill", "0=Wood"]):
            result = run("import", "keisei", "a.pt", "--output", "p", *option)
            assert result.exit_code == 2 and f"No such option: {option[0]}" in result.stderr
