"""`policysmith store`: what is in a store, told and looked after."""

import json

import pytest
import typer

import policysmith
from policysmith.cli import app
from policysmith.store import PolicyStore
from tests.store.workers import small_policy

GLOBAL = ["--plugin", "--debug"]
SURFACE = {
    "ls": ["SELECTOR", "--sort", "--limit", "--store", "--json", *GLOBAL],
    "show": ["SELECTOR", "--store", "--json", *GLOBAL],
    "tag": ["SELECTOR", "TAG", "--remove", "--store", *GLOBAL],
    "rm": ["SELECTOR", "--all", "--store", *GLOBAL],
    "gc": ["--dry-run", "--grace", "--store", "--json", *GLOBAL],
    "verify": ["--reindex", "--store", "--json", *GLOBAL],
    "diff": ["SELECTOR", "SELECTOR", "--store", "--json", *GLOBAL],
}


@pytest.fixture
def store(tmp_path):
    """Three policies in the store that commands look into by default."""
    store = PolicyStore(tmp_path / "policies")
    for step, value in enumerate([1.0, 3.0, 2.0]):
        parents = [r.id for r in store.find("latest")]
        store.save(small_policy(step), name="cart", step=1000 * step, metrics={"return": value}, parents=parents)
    store.tag("best:return", "good")
    return store


def test_commands_and_options_are_frozen():
    """A change here is a line in the CHANGELOG."""
    group = typer.main.get_command(app).commands["store"]
    names = {
        name: [p.metavar if p.param_type_name == "argument" else p.opts[0] for p in command.params]
        for name, command in group.commands.items()
    }
    assert names == SURFACE


@pytest.mark.parametrize("name", SURFACE)
def test_every_command_explains_its_options_and_gives_examples(run, name):
    result = run("store", name, "--help")
    assert result.exit_code == 0
    assert f"\nExamples:\n  policysmith store {name}" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_the_list_is_a_table(run, store):
    lines = run("store", "ls").stdout.splitlines()
    assert lines[0].split() == ["id", "name", "step", "return", "tags", "created"]
    assert [line.split()[:4] for line in lines[1:-1]] == [
        [record.short, "cart", f"{record.step:,}", f"{record.metrics['return']:.4g}"] for record in store.find()
    ]
    assert lines[-1] == "3 policies"
    assert "good" in lines[2]


def test_the_list_is_selected_sorted_and_limited(run, store):
    def returns(*words):
        result = run("store", "ls", *words, "--json")
        assert result.exit_code == 0, result.stderr
        return [policy["metrics"]["return"] for policy in json.loads(result.stdout)["policies"]]

    assert returns() == [2, 3, 1]
    assert returns("top:2:return") == [3, 2]
    assert returns("--sort", "-return") == [3, 2, 1]
    assert returns("--sort", "step", "--limit", "2") == [1, 3]
    assert returns("tag:good") == [3]
    assert "2 policies, 1 not shown" in run("store", "ls", "top:2:return", "--limit", "1").stdout
    assert "did you mean 'return'?" in run("store", "ls", "--sort", "retrun").stderr


def test_show_tells_all_of_one(run, store):
    text = run("store", "show").stdout
    record = store.get("latest")
    assert record.id in text and "return 2" in text and store.get("best:return").short in text
    assert "trunk  mlp  40 parameters" in text
    data = json.loads(run("store", "show", "best:return", "--json").stdout)
    assert data["id"] == store.get("best:return").id and data["tags"] == ["good"] and "nonce" not in data


def test_tags_are_given_and_taken(run, store):
    assert "tagged" in run("store", "tag", "latest", "new", "fresh").stdout
    assert store.get("latest").tags == ("fresh", "new")
    run("store", "tag", "tag:new", "new", "--remove")
    assert store.get("latest").tags == ("fresh",)


def test_several_are_removed_only_when_that_is_said(run, store):
    refused = run("store", "rm", "cart")
    assert (refused.exit_code, refused.stdout) == (1, "") and "means 3 policies" in refused.stderr
    assert run("store", "rm", "best:return").exit_code == 0 and len(store.find()) == 2
    assert run("store", "rm", "cart", "--all").exit_code == 0 and store.find() == []


def test_gc_says_what_it_frees(run, store):
    store.remove("latest")
    planned = json.loads(run("store", "gc", "--dry-run", "--json").stdout)
    assert len(planned["files"]) == 1 and not planned["removed"]
    assert f"1 file, {planned['bytes']} bytes" in run("store", "gc").stdout
    assert "0 files" in run("store", "gc").stdout


def test_verify_ends_with_1_and_names_each_damaged_file(run, store, tmp_path):
    assert run("store", "verify").stdout == "whole: 3 policies\n"
    file = next((tmp_path / "policies" / "objects").rglob("*.safetensors"))
    file.write_bytes(b"short")
    result = run("store", "verify")
    assert result.exit_code == 1 and result.stdout.startswith(f"{file}: is damaged")
    assert json.loads(run("store", "verify", "--json").stdout)["problems"][0]["file"] == str(file)


def test_an_index_is_built_again_when_asked(run, store, tmp_path):
    (tmp_path / "policies" / "index.sqlite").write_bytes(b"x")
    assert "missing or damaged" in run("store", "verify").stdout
    assert run("store", "verify", "--reindex").stdout == "whole: 3 policies\n"


def test_a_difference_is_told(run, store):
    lines = run("store", "diff", "best:-return", "best:return").stdout.splitlines()
    assert "step: 0 → 1000" in lines and "metrics.return: 1.0 → 3.0" in lines
    assert "components.trunk: same" in lines and "components.policy: changed by up to 1" in lines
    data = json.loads(run("store", "diff", "best:-return", "best:return", "--json").stdout)
    assert data["components"]["policy"] == 1.0 and data["said"]["step"] == [0, 1000]


def test_a_policy_of_a_store_is_shown_and_loaded_by_its_selector(run, store):
    first, second = (json.loads(run("show", f"policies#{s}", "--json").stdout) for s in ("best:return", "latest"))
    assert first == second and first["totals"]["parameters"] == store.get("latest").parameters
    loaded = policysmith.load("policies#best:return")
    assert all((parameter == 1).all() for parameter in loaded.components["policy"].parameters())
    assert "means no policy" in run("show", "policies#best:nothing").stderr


@pytest.mark.parametrize("name", ["ls", "show", "gc", "verify"])
def test_where_there_is_no_store_nothing_is_made(run, name, tmp_path):
    result = run("store", name, "--store", "elsewhere")
    assert result.exit_code == 1 and "there is no store of policies" in result.stderr
    assert list(tmp_path.iterdir()) == []
