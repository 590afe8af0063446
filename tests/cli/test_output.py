"""Numbers, paths and tables as people read them."""

import pytest
from rich.text import Text

from policysmith.cli import output
from policysmith.errors import PolicysmithError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.44, "9.4 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (72, "1 min 12 s"),
        (3599.6, "1 h 00 min"),
        (7385, "2 h 03 min"),
        (360000, "100 h 00 min"),
    ],
)
def test_durations(seconds, text):
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (500, 0, "500.0 ± 0.0"),
        (-1432.25, 120.04, "-1,432.2 ± 120.0"),
        (21.354, 0.4, "21.35 ± 0.40"),
        (0.9551, 0.02, "0.955 ± 0.020"),
        (0.0, 3.0, "0.00 ± 3.00"),
    ],
)
def test_returns_have_as_many_decimals_as_they_deserve(mean, deviation, text):
    assert output.mean_and_deviation(mean, deviation) == text


def test_counts():
    assert [output.count(n, "component") for n in (0, 1, 9155)] == ["0 components", "1 component", "9,155 components"]


def test_paths_are_relative_where_that_is_short(tmp_path):
    assert output.shown_path(tmp_path / "runs" / "a") == "runs/a"
    assert output.shown_path("runs/a") == "runs/a"
    assert output.shown_path("/elsewhere") == "/elsewhere"


def test_a_file_gets_its_directory(tmp_path):
    output.write_file(tmp_path / "a" / "b.txt", "é")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "é"


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicysmithError, match=r"cannot write .*file/x: "):
        output.write_file(tmp_path / "file" / "x", "")


def test_facts_are_aligned(capsys):
    output.facts({"steps": "1", "next": ["a", "b"], "policy": Text("[x]")})
    assert capsys.readouterr().out == "steps     1\nnext      a\n          b\npolicy    [x]\n"


def test_columns_are_aligned_and_cut_at_the_width(capsys):
    output.print_columns([("a", "x" * 100), ("bcd", "[short]")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["  a    " + "x" * 72 + "…", "  bcd  [short]"]


def test_a_pipe_is_wider_than_a_terminal(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS")
    output.print_columns([("a", "x" * 200)])
    assert len(capsys.readouterr().out.rstrip("\n")) == output.PIPE_WIDTH


def test_paragraphs_break_between_words(capsys):
    output.print_paragraph("word " * 30)
    assert all(len(line) <= 80 and line == line.strip() for line in capsys.readouterr().out.splitlines())
