"""The traps that the original fell into (seed 004), each beside the tests that show it is not ours."""

import ast
import importlib
from pathlib import Path

import pytest

SKILLS = Path(__file__).parents[2] / "policysmith" / "skills"
TRAPS = {
    "a header above the code is overridden by it": [
        "test_remap.test_the_functions_themselves_are_rewritten",
        "test_remap.test_any_way_of_writing_it_is_rewritten",
    ],
    "doubled dependencies and continued experts give maps that are no inverse": [
        "test_remap.test_order_and_repetition_do_not_matter",
        "test_remap.test_continuing_an_expert_gives_one_local_index_for_it",
        "test_remap.test_two_names_of_one_expert_are_one",
        "test_remap.test_maps_that_are_no_inverse_are_refused",
    ],
    "expert 1 is taken for 10 or 11": [
        "test_moe_checkpoint.test_expert_1_is_not_10_or_11",
        "test_moe_checkpoint.test_names_are_matched_whole",
        "test_training_run.test_twelve_experts_come_home_under_their_own_numbers",
    ],
    "several rules make folders of names": ["test_remap.test_one_rule_makes_folders_of_names"],
    "a count is not set in some signatures": [
        "test_generate.test_a_count_is_set_however_the_signature_is_written",
        "test_generate.test_a_count_as_the_only_argument_is_set",
        "test_scheduling_file.test_a_count_that_the_code_does_not_take_is_told",
    ],
    "a NaN in an unused expert spreads": ["test_actor_critic_moe.test_a_nan_in_one_expert_stays_there"],
    "a task out of range is clamped": [
        "test_actor_critic_moe.test_an_id_out_of_range_is_refused_and_not_clamped",
        "test_moe_model.test_an_id_out_of_range_is_refused_in_a_policy_too",
    ],
    "a continued expert starts from noise, its optimiser anew": [
        "test_moe_checkpoint.test_a_continued_expert_is_in_the_seed_with_its_moments",
        "test_moe_checkpoint.test_training_goes_on_as_if_it_had_not_stopped",
        "test_training_run.test_a_continued_expert_goes_on_from_its_weights_and_moments",
    ],
    "a missing file is taken for a busy lock": [
        "test_training_run.test_what_is_missing_is_told_at_once",
        "test_scheduling_rules.test_experts_that_cannot_be_brought_home_are_a_failure",
    ],
    "frames are credited to whom did not learn, the first update is forgotten": [
        "test_skill_ppo.test_frames_are_the_rows_learned_from_by_expert",
        "test_worker.test_a_skill_is_trained_to_its_goal_and_its_dependency_stays",
        "test_worker.test_a_signal_stops_it_with_a_checkpoint_from_which_it_goes_on",
    ],
    "an expert of nobody is registered under the run's skill": [
        "test_training_run.test_an_expert_that_the_run_does_not_own_is_not_taken_for_its_skill",
    ],
    "of two runs from one seed the shorter is thrown away": [
        "test_training_run.test_two_runs_that_continue_one_expert_both_survive",
        "test_library_processes.test_two_runs_that_continue_one_expert_both_survive",
        "test_library_processes.test_many_processes_that_continue_one_expert_lose_nothing",
    ],
}


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_tests(trap):
    for place in TRAPS[trap]:
        module, _, name = place.partition(".")
        assert callable(getattr(importlib.import_module(f"tests.skills.{module}"), name)), place


def test_nothing_is_pickled_and_no_debugger_is_left():
    files = list(SKILLS.rglob("*.py"))
    assert len(files) > 40
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.id] if isinstance(node, ast.Name) else []
            assert not {"pickle", "cloudpickle", "pdb", "breakpoint"} & set(names), f"{file}:{node.lineno}"
