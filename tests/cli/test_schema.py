"""`policysmith schema`: the schema on stdout or in a file."""

import json
from pathlib import Path

from policysmith.config.json_schema import experiment_schema
from policysmith.registry import default_registry


def test_it_prints_one_json_object(run):
    result = run("schema")
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == experiment_schema(default_registry)


def test_a_file_comes_with_the_line_that_editors_read(run):
    assert run("schema", "--output", "editor/policy.schema.json").stdout == (
        "wrote editor/policy.schema.json\n"
        "first line of an experiment file:  # yaml-language-server: $schema=editor/policy.schema.json\n"
    )
    assert json.loads(Path("editor/policy.schema.json").read_text(encoding="utf-8"))["definitions"]
