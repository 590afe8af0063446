"""The mutations: what is replaced where, and which test must see it."""

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """`old` stands once in the file, which is below the package; `test` must fail with `new` in its place."""

    file: str
    old: str
    new: str
    test: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old} → {self.new}"


# Test file → test → mutations that it must see, each as file, text, and what stands in its place.
_PLANNED: dict[str, dict[str, list[tuple[str, str, str]]]] = {
    "tests/training/ppo/test_ppo_update.py": {
        "test_an_update_is_the_loop_over_rows": [
            ("training/ppo/loss.py", "loss - self.entropy_coef * terms", "loss + self.entropy_coef * terms"),
            ("training/ppo/loss.py", "self.value_coef * terms.value", "terms.value"),
            ("training/ppo/loss.py", "minibatch.weight * n / sum(rows)", "minibatch.weight / len(rows)"),
            ("training/ppo/loss.py", "(advantage - moments.mean) / (", "advantage / ("),
            ("training/ppo/loss.py", "if self.normalize_advantage and", "if True and"),
            (
                "training/ppo/ppo.py",
                "Columns(rollout.log_probs, advantages, advantages + rollout.values",
                "Columns(rollout.log_probs, advantages, advantages",
            ),
            ("training/ppo/loss.py", "torch.minimum(advantage * ratio", "torch.maximum(advantage * ratio"),
            ("training/ppo/loss.py", "ratio.clamp(1.0 - clip, 1.0 + clip)", "ratio.clamp(max=1.0 + clip)"),
            ("training/ppo/loss.py", "error = torch.maximum(error", "error = torch.minimum(error"),
            ("training/ppo/loss.py", "old_value + (value - old_value).clamp", "value + (value - old_value).clamp"),
            ("training/ppo/loss.py", "0.5 * error.mean()", "error.mean()"),
            ("training/ppo/loss.py", "(log_prob - old_log_prob).exp()", "(old_log_prob - log_prob).exp()"),
            ("training/ppo/loss.py", "(ratio - 1.0 - log_ratio).mean()", "(ratio - 1.0 + log_ratio).mean()"),
            ("training/ppo/advantages.py", "1.0 - terminated, value=gamma", "1.0 - done, value=gamma"),
            (
                "training/ppo/advantages.py",
                "(1.0 - done).mul_(gamma * gae_lambda)",
                "(1.0 - terminated).mul_(gamma * gae_lambda)",
            ),
            ("training/ppo/advantages.py", ".mul_(gamma * gae_lambda)", ".mul_(gae_lambda)"),
            ("training/optim/step_guard.py", "(max_norm / (norm + 1e-6)).clamp(max=1.0)", "(max_norm / (norm + 1e-6))"),
        ],
        "test_auxiliary_losses_are_added_once": [
            ("training/ppo/loss.py", "loss = loss + term", "loss = loss + 0 * term"),
        ],
        "test_every_epoch_is_drawn_anew_and_ends_early_by_divergence": [
            ("training/ppo/ppo.py", "kl > self.target_kl", "kl < self.target_kl"),
        ],
        "test_schedules_moments_and_the_average_of_weights_go_through_all_iterations": [
            ("training/ppo/ppo.py", "progress = iteration / total", "progress = (iteration + 1) / total"),
            (
                "training/ppo/ppo.py",
                "clip, entropy_coef = self._clip(progress)",
                "clip, entropy_coef = self._clip(0.0)",
            ),
            ("training/optim/averaging.py", "1 - self.decay)", "self.decay)"),
            ("training/optim/schedules.py", "start + (end - start) * progress", "end + (start - end) * progress"),
        ],
        "test_a_value_of_several_heads_learns_how_games_end": [
            ("training/ppo/value_objectives.py", "loss + self.score_coef * score_loss", "loss + score_loss"),
            ("training/ppo/value_objectives.py", "self.outcome_coef * outcome_loss", "outcome_loss"),
            ("training/ppo/game_outcomes.py", "DRAW - rollout.rewards.sign()", "DRAW + rollout.rewards.sign()"),
        ],
        "test_a_memory_learns_through_its_sequences": [
            ("training/ppo/minibatches.py", "max(0, start - burn_in)", "start"),
            ("training/ppo/minibatches.py", "(chosen >= self.environments)", "(chosen > self.environments)"),
            (
                "training/ppo/minibatches.py",
                "source = chosen[late] - self.environments",
                "source = chosen[late] - chosen[late]",
            ),
        ],
        "test_components_with_rules_of_their_own_share_one_clipping": [
            ("training/optim/optimizers.py", "learning_rate if own is None else own(progress)", "learning_rate"),
        ],
        "test_a_stated_rule_takes_the_steps": [
            ("training/optim/optimizers.py", "(others, 0.0)", "(others, weight_decay)"),
        ],
        "test_illegal_choices_and_rows_without_a_legal_one": [
            ("ops/sample.py", "torch.where(mask, logits, torch.finfo(logits.dtype).min)", "logits * 1"),
            ("ops/sample.py", "torch.where(mask, log_probs, 0.0)", "log_probs * 0.5"),
        ],
    },
    "tests/training/offline/test_offline_updates.py": {
        "test_cloning_of_choices": [
            ("training/offline/objectives/bc.py", "loss - self.entropy_coef", "loss + self.entropy_coef"),
            ("training/offline/batches.py", "seed * 1_000_003 + epoch + 1", "seed * 1_000_003 + 1"),
            ("training/offline/micro_batches.py", "len(part.rows) / len(batch.rows)", "1 / count"),
        ],
        "test_advantage_weighted_regression": [
            ("training/offline/objectives/awr.py", "+ options.value_coef * value", "+ value"),
            ("training/offline/objectives/awr.py", "-(weight * found.log_prob)", "-(found.log_prob)"),
            (
                "training/offline/objectives/learner.py",
                "(advantage / temperature).exp()",
                "(advantage * temperature).exp()",
            ),
            ("training/offline/objectives/learner.py", ".clamp(max=largest)", ""),
            ("training/datasets/episodes.py", "rewards[rows] + gamma * total", "rewards[rows] + total"),
        ],
        "test_implicit_q_learning": [
            ("training/offline/objectives/iql.py", "torch.minimum(*(_ask", "torch.maximum(*(_ask"),
            (
                "training/offline/objectives/iql.py",
                "(difference > 0, expectile, 1.0 - expectile)",
                "(difference < 0, expectile, 1.0 - expectile)",
            ),
            ("training/offline/objectives/iql.py", "options.value_coef * value + q", "value + q"),
            (
                "training/offline/objectives/iql.py",
                "going_on = 1.0 - self.data.ends",
                "going_on = 1.0 + 0.0 * self.data.ends",
            ),
            (
                "training/offline/objectives/iql.py",
                "list(critic.parameters()), self.options.target_rate)",
                "list(critic.parameters()), 1.0)",
            ),
            ("training/offline/objectives/iql.py", '* batch.known.get("weight", 1.0)', ""),
        ],
        "test_return_conditioned_cloning": [
            ("training/offline/objectives/decision_transformer.py", "returns(1.0)", "returns(0.9)"),
        ],
        "test_flow_matching": [
            (
                "training/offline/objectives/flow_matching.py",
                "(1 - time) * noise + time * target",
                "time * noise + (1 - time) * target",
            ),
            (
                "training/offline/objectives/flow_matching.py",
                "velocity - (target - noise)",
                "velocity - (noise - target)",
            ),
            ("training/offline/objectives/flow_matching.py", "(error * real_NH).sum() / real_NH.sum()", "error.mean()"),
        ],
        "test_cloning_over_windows": [
            ("training/offline/batches.py", "(steps_BL >= begin + before)", "(steps_BL >= begin)"),
        ],
        "test_steps_follow_a_schedule": [
            (
                "training/offline/offline.py",
                "optimizer.advance(update / total, self._learning_rate(update / total))",
                "optimizer.advance(0.0, self._learning_rate(0.0))",
            ),
        ],
        "test_cloning_of_numbers": [
            ("ops/sample.py", "-0.5 * z.square() - log_std", "-0.5 * z.square() + log_std"),
        ],
    },
    "tests/training/rollout/test_rollout_steps.py": {
        "test_values_and_probabilities_are_the_networks": [
            ("training/rollout/collector.py", "if not self.stepping.next_step and", "if False and"),
            (
                "training/rollout/collector.py",
                "torch.cat([values_TN[1:], self._last_value()[None]])",
                "values_TN.clone()",
            ),
        ],
        "test_a_memory_is_carried_through_episodes_and_rollouts": [
            (
                "training/rollout/stepping.py",
                "self.first = self.over if self.next_step else done",
                "self.first = done",
            ),
        ],
        "test_rows_are_what_each_environment_gave": [
            ("training/rollout/stepping.py", "self.returns[done] = 0.0", "pass"),
        ],
    },
    "tests/training/rollout/test_stepping.py": {
        "test_a_row_without_a_mask_is_all_legal": [
            ("training/environments/legal.py", "whole[~rows] = 1", "whole[~rows] = 0"),
        ],
        "test_the_modes_same_step_and_disabled_are_alike": [
            ("training/environments/autoreset.py", "copy.deepcopy(rows[row])", "rows[0]"),
        ],
    },
    "tests/training/games/test_self_play.py": {
        "test_rows_are_those_of_each_seat_on_its_own": [
            ("training/games/self_play.py", "self.rewards[index] += reward", "self.rewards[index] = reward"),
            ("training/games/self_play.py", "ENDED if terminated else UNKNOWN", "ENDED"),
            (
                "training/games/self_play.py",
                "moves.reward(2 * table + seat, rewards[seat]",
                "moves.reward(2 * table + seat, rewards[1 - seat]",
            ),
        ],
    },
    "tests/skills/test_skill_ppo.py": {
        "test_advantages_are_normalised_among_the_rows_of_an_expert": [
            ("skills/training/skill_ppo.py", "if int(own.sum()) >= SMALLEST", "if True"),
            ("skills/training/skill_ppo.py", ".clamp(-FARTHEST, FARTHEST)", ".clamp(-1.0, 1.0)"),
        ],
        "test_an_update_is_the_loop_over_the_rows_of_trained_experts": [
            ("skills/training/skill_ppo.py", "max(1, len(self.skills) // SMALLEST)", "count"),
        ],
    },
    "tests/training/distribution/test_distributed.py": {
        "test_ranks_count_by_the_rows_they_learn_from": [
            ("training/ppo/global_minibatches.py", "own * world.size / rows", "1.0"),
        ],
        "test_a_ppo_update_on_two_ranks_is_one_of_both_rollouts": [
            ("training/ppo/global_minibatches.py", "mean = total / rows", "mean = total / most"),
        ],
    },
    "tests/training/distribution/test_distributed_parts.py": {
        "test_weights_of_ranks_average_to_one_and_follow_the_rows": [
            ("training/offline/shared_sampler.py", "counts[self._world.rank] * self._world.size / sum(counts)", "1.0"),
        ],
    },
    "tests/ops/test_route.py": {
        "test_values_and_gradients_equal_those_of_a_loop_over_rows": [
            (
                "ops/route.py",
                "torch.where(hit_NK, gates_NK, 0.0).sum(-1, keepdim=True)",
                "hit_NK.sum(-1, keepdim=True)",
            ),
        ],
        "test_nan_in_an_expert_reaches_only_rows_that_chose_it": [
            ("ops/route.py", "experts.one(index, torch.where(hit_N1, x_ND, 0.0))", "experts.one(index, x_ND)"),
        ],
        "test_a_bias_shifts_the_choice_and_leaves_the_gates_alone": [
            ("ops/route.py", "(scores + bias_E).topk(k)", "scores.topk(k)"),
        ],
    },
    "tests/policy/test_masks.py": {
        "test_a_row_without_a_legal_action_gives_log_prob_zero_to_any_action": [
            ("policy/actions.py", "log_prob = torch.where(mask.any(-1), log_prob, 0.0)", "pass"),
        ],
        "test_a_row_without_a_legal_action_is_the_first_action_with_log_prob_and_entropy_zero": [
            ("policy/actions.py", "index, log_prob = index * some", "index, log_prob = index"),
        ],
    },
    "tests/policy/test_actions.py": {
        "test_a_squashed_box_is_a_gaussian_through_tanh_and_an_affine_map": [
            ("ops/sample.py", "loc, log_std) - _log_tanh_slope(u)", "loc, log_std) + _log_tanh_slope(u)"),
        ],
        "test_box_is_a_diagonal_gaussian": [
            ("ops/sample.py", "log_std + (0.5 + LOG_SQRT_2PI)", "log_std + LOG_SQRT_2PI"),
        ],
    },
    "tests/parts/test_normalizer.py": {
        "test_chunks_give_the_mean_and_variance_of_all_rows": [
            ("parts/normalizer.py", "rows.var(0, correction=0)", "rows.var(0)"),
            ("parts/normalizer.py", "delta.square() * self.count * fresh / total", "delta.square() * fresh / total"),
        ],
        "test_it_normalises_and_clips": [
            ("parts/normalizer.py", "(x - self.mean)", "(x + self.mean)"),
        ],
    },
    "tests/compile/test_exclusive.py": {
        "test_one_thread_at_a_time_holds_the_lock_of_an_owner": [
            ("compile/exclusive.py", "if lock is None:", "if True:"),
        ],
        "test_who_holds_it_may_take_it_again": [
            ("compile/exclusive.py", "lock = self._known[owner] = threading.RLock()", "return threading.Lock()"),
        ],
        "test_a_forked_process_has_no_lock_that_nobody_can_release": [
            ("compile/exclusive.py", "os.register_at_fork(after_in_child=self._start_anew)", "pass"),
        ],
    },
    "tests/compile/test_program.py": {
        "test_a_part_that_writes_to_itself_does_so_at_each_call": [
            ("compile/trace.py", "if _changed(twin, before)", "if False"),
        ],
    },
    "tests/laws/test_threads.py": {
        "test_a_swap_waits_for_code_that_is_being_made": [
            ("policy/swap.py", "with exclusive(policy.components):", "if True:"),
        ],
        "test_code_is_made_once_while_the_others_wait": [
            ("compile/exclusive.py", "return _LOCKS.of(owner)", "return threading.RLock()"),
            ("compile/program.py", "if self._made.token is token:", "if True:"),
            ("compile/runner.py", "if call not in programs:  # or else", "if True:  # or else"),
            ("compile/runner.py", "with exclusive(self._owner):", "if True:"),
        ],
    },
    "tests/parts/memory/test_gru.py": {
        "test_every_way_equals_the_slow_twin_with_resets": [
            ("ops/resets.py", "return torch.where(self.first_TB1[t], initial_1H, before_BH)", "return before_BH"),
        ],
    },
    "tests/ops/test_reset_state.py": {
        "test_rows_that_begin_take_the_initial_state_and_the_others_go_on": [
            ("ops/reset_state.py", "initial[name], tensor)", "tensor, tensor)"),
        ],
    },
    "tests/ops/test_scan.py": {
        "test_a_scan_equals_its_definition": [
            ("ops/scan.py", "add_TBH[1:].addcmul(decay_TBH[1:], initial_1H)", "add_TBH[1:]"),
        ],
    },
    "tests/policy/test_swap.py": {
        "test_without_keep_weights_it_starts_anew": [
            ("policy/swap.py", "if keep_weights or other != name:", "if True:"),
        ],
        "test_rollback_brings_everything_back": [
            ("policy/swap.py", "undo.callback(self._put, swap.before, swap.plans[0], swap.configs[0])", "pass"),
        ],
        "test_the_optimizer_keeps_moments_of_what_stays_and_starts_those_of_what_comes": [
            ("policy/swap.py", "hand_over(exchange, optimizers, undo)", "pass"),
        ],
        "test_a_memory_keeps_the_state_of_episodes_under_way": [
            ("policy/swap.py", "if node.measure.state != old.measure.state", "if False"),
        ],
    },
    "tests/store/test_artifact.py": {
        "test_a_flipped_bit_or_a_lost_end_is_noticed_in_every_file": [
            ("store/artifact.py", 'sha256(content) != record["sha256"]', "False"),
        ],
    },
    "tests/store/test_files.py": {
        "test_a_file_is_on_the_disk_with_all_that_it_holds_before_it_counts_as_written": [
            ("store/files.py", "os.fsync(stream.fileno())", "pass"),
        ],
    },
    "tests/laws/test_determinism.py": {
        "test_two_components_of_one_type_start_differently": [
            ("graph/assemble.py", 'f"{seed}:{name}"', 'f"{seed}"'),
        ],
    },
    "tests/config/test_overrides.py": {
        "test_removal_takes_keys_and_items_away": [
            ("config/overrides.py", "if key in entries and not rest and override.value is None", "if False"),
        ],
    },
    "tests/config/test_load.py": {
        "test_deeper_nesting_is_a_problem_at_its_place": [
            ("config/located_data.py", "MAX_DEPTH = 200", "MAX_DEPTH = 20_000"),
        ],
    },
}

MUTANTS = [
    Mutant(*mutation, f"{file}::{function}")
    for file, functions in _PLANNED.items()
    for function, mutations in functions.items()
    for mutation in mutations
]
