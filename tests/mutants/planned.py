"""The mutations: what is replaced where, and which tests must see it. Text and replacement are pieces of one line."""

from typing import NamedTuple

__all__ = ["EXPLAINED", "MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """`old` stands once in the file, which is below the package; one of `tests` must fail with `new` in its place."""

    file: str
    old: str
    new: str
    tests: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old} → {self.new}"


PPO = "tests/training/ppo/test_ppo_update.py"
OFFLINE = "tests/training/offline/test_offline_updates.py"
ROLLOUT = "tests/training/rollout/test_rollout_steps.py"
SELF_PLAY = "tests/training/games/test_self_play.py"
SKILLS = "tests/skills/test_skill_ppo.py"
RANKS = "tests/training/distribution/test_distributed.py tests/training/distribution/test_distributed_parts.py"
ROUTE = "tests/ops/test_route.py"
ACTIONS = "tests/policy/test_actions.py"
NORMALIZER = "tests/parts/test_normalizer.py"
THREADS = "tests/laws/test_threads.py::test_code_is_made_once_while_the_others_wait"
SWAP = "tests/policy/test_swap.py tests/policy/test_parameter_exchange.py"
STORE = "tests/store/test_artifact.py tests/store/test_files.py"

_PLANNED: dict[str, list[tuple[str, str, str]]] = {
    PPO: [
        ("training/ppo/loss.py", "loss - self.entropy_coef * terms", "loss + self.entropy_coef * terms"),
        ("training/ppo/loss.py", "self.value_coef * terms.value", "terms.value"),
        ("training/ppo/loss.py", "(advantage - moments.mean) / (", "advantage / ("),
        ("training/ppo/loss.py", "loss = loss + term", "loss = loss + 0 * term"),
        ("training/ppo/loss.py", "if self.normalize_advantage and", "if True and"),
        ("training/ppo/ppo.py", "kl > self.target_kl", "kl < self.target_kl"),
        ("training/ppo/ppo.py", "progress = iteration / total", "progress = (iteration + 1) / total"),
        ("training/ppo/ppo.py", "clip, entropy_coef = self._clip(progress)", "clip, entropy_coef = self._clip(0.0)"),
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
        ("training/ppo/value_objectives.py", "loss + self.score_coef * score_loss", "loss + score_loss"),
        ("training/ppo/value_objectives.py", "self.outcome_coef * outcome_loss", "outcome_loss"),
        ("training/ppo/game_outcomes.py", "DRAW - rollout.rewards.sign()", "DRAW + rollout.rewards.sign()"),
        ("training/ppo/minibatches.py", "max(0, start - burn_in)", "start"),
        ("training/ppo/minibatches.py", "(chosen >= self.environments)", "(chosen > self.environments)"),
        (
            "training/ppo/minibatches.py",
            "source = chosen[late] - self.environments",
            "source = chosen[late] - chosen[late]",
        ),
        ("training/optim/step_guard.py", "(max_norm / (norm + 1e-6)).clamp(max=1.0)", "(max_norm / (norm + 1e-6))"),
        ("training/optim/optimizers.py", "learning_rate if own is None else own(progress)", "learning_rate"),
        ("training/optim/optimizers.py", "(others, 0.0)", "(others, weight_decay)"),
        ("training/optim/averaging.py", "1 - self.decay)", "self.decay)"),
        ("training/optim/schedules.py", "start + (end - start) * progress", "end + (start - end) * progress"),
        ("ops/sample.py", "torch.where(mask, logits, torch.finfo(logits.dtype).min)", "logits * 1"),
        ("ops/sample.py", "torch.where(mask, log_probs, 0.0)", "log_probs * 0.5"),
    ],
    OFFLINE: [
        ("training/offline/objectives/bc.py", "loss - self.entropy_coef", "loss + self.entropy_coef"),
        ("training/offline/objectives/awr.py", "+ options.value_coef * value", "+ value"),
        ("training/offline/objectives/awr.py", "-(weight * found.log_prob)", "-(found.log_prob)"),
        (
            "training/offline/objectives/learner.py",
            "(advantage / temperature).exp()",
            "(advantage * temperature).exp()",
        ),
        ("training/offline/objectives/learner.py", ".clamp(max=largest)", ""),
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
        ("training/offline/objectives/decision_transformer.py", "returns(1.0)", "returns(0.9)"),
        (
            "training/offline/objectives/flow_matching.py",
            "(1 - time) * noise + time * target",
            "time * noise + (1 - time) * target",
        ),
        ("training/offline/objectives/flow_matching.py", "velocity - (target - noise)", "velocity - (noise - target)"),
        ("training/offline/objectives/flow_matching.py", "(error * real_NH).sum() / real_NH.sum()", "error.mean()"),
        ("training/offline/batches.py", "(steps_BL >= begin + before)", "(steps_BL >= begin)"),
        ("training/offline/batches.py", "seed * 1_000_003 + epoch + 1", "seed * 1_000_003 + 1"),
        (
            "training/offline/offline.py",
            "optimizer.advance(update / total, self._learning_rate(update / total))",
            "optimizer.advance(0.0, self._learning_rate(0.0))",
        ),
        ("training/offline/micro_batches.py", "len(part.rows) / len(batch.rows)", "1 / count"),
        ("training/datasets/episodes.py", "rewards[rows] + gamma * total", "rewards[rows] + total"),
        ("ops/sample.py", "-0.5 * z.square() - log_std", "-0.5 * z.square() + log_std"),
    ],
    ROLLOUT: [
        ("training/rollout/collector.py", "if not self.next_step and np.count_nonzero(seen.truncated)", "if False"),
        (
            "training/rollout/collector.py",
            "self._begins = self._ended if self.next_step else done",
            "self._begins = done",
        ),
        ("training/rollout/collector.py", "self._returns[done] = 0.0", "pass"),
        ("training/rollout/collector.py", "torch.cat([values_TN[1:], self._last_value()[None]])", "values_TN.clone()"),
    ],
    SELF_PLAY: [
        ("training/games/self_play.py", "self.rewards[index] += reward", "self.rewards[index] = reward"),
        ("training/games/self_play.py", "ENDED if terminated else UNKNOWN", "ENDED"),
        (
            "training/games/self_play.py",
            "moves.reward(2 * table + seat, rewards[seat]",
            "moves.reward(2 * table + seat, rewards[1 - seat]",
        ),
    ],
    SKILLS: [
        ("skills/training/skill_ppo.py", "if int(own.sum()) >= SMALLEST", "if True"),
        ("skills/training/skill_ppo.py", ".clamp(-FARTHEST, FARTHEST)", ".clamp(-1.0, 1.0)"),
        ("skills/training/skill_ppo.py", "max(1, len(self.skills) // SMALLEST)", "count"),
    ],
    RANKS: [
        ("training/ppo/global_minibatches.py", "own * world.size / rows", "1.0"),
        ("training/ppo/global_minibatches.py", "mean = total / rows", "mean = total / most"),
        ("training/offline/shared_sampler.py", "counts[self._world.rank] * self._world.size / sum(counts)", "1.0"),
    ],
    ROUTE: [
        ("ops/route.py", "torch.where(hit_NK, gates_NK, 0.0).sum(-1, keepdim=True)", "hit_NK.sum(-1, keepdim=True)"),
        ("ops/route.py", "experts.one(index, torch.where(hit_N1, x_ND, 0.0))", "experts.one(index, x_ND)"),
        ("ops/route.py", "(scores + bias_E).topk(k)", "scores.topk(k)"),
    ],
    ACTIONS: [
        ("policy/actions.py", "index, log_prob = index * some", "index, log_prob = index"),
        ("ops/sample.py", "loc, log_std) - _log_tanh_slope(u)", "loc, log_std) + _log_tanh_slope(u)"),
        ("ops/sample.py", "log_std + (0.5 + LOG_SQRT_2PI)", "log_std + LOG_SQRT_2PI"),
    ],
    NORMALIZER: [
        ("parts/normalizer.py", "rows.var(0, correction=0)", "rows.var(0)"),
        ("parts/normalizer.py", "delta.square() * self.count * fresh / total", "delta.square() * fresh / total"),
        ("parts/normalizer.py", "(x - self.mean)", "(x + self.mean)"),
    ],
    "tests/compile/test_exclusive.py": [
        ("compile/exclusive.py", "if lock is None:", "if True:"),
        ("compile/exclusive.py", "lock = self._known[owner] = threading.RLock()", "return threading.Lock()"),
        ("compile/exclusive.py", "os.register_at_fork(after_in_child=self._start_anew)", "pass"),
    ],
    "tests/compile/test_program.py::test_a_part_that_writes_to_itself_does_so_at_each_call": [
        ("compile/trace.py", "if _changed(twin, before)", "if False"),
    ],
    THREADS: [
        ("compile/exclusive.py", "return _LOCKS.of(owner)", "return threading.RLock()"),
        ("compile/program.py", "if self._made.token is token:", "if True:"),
        ("compile/runner.py", "if program is None:  # or else", "if True:  # or else"),
        ("policy/actor_critic.py", "if key in self._programs:  # another", "if False:  # another"),
    ],
    "tests/laws/test_memory.py tests/parts/memory tests/ops/test_scan.py": [
        ("ops/resets.py", "return torch.where(self.first_TB1[t], initial_1H, before_BH)", "return before_BH"),
        ("ops/reset_state.py", "initial[name], tensor)", "tensor, tensor)"),
        ("ops/scan.py", "add_TBH[1:].addcmul(decay_TBH[1:], initial_1H)", "add_TBH[1:]"),
    ],
    SWAP: [
        ("policy/swap.py", "undo.callback(self._put, swap.before, swap.plans[0], swap.configs[0])", "pass"),
        ("policy/swap.py", "hand_over(exchange, optimizers, undo)", "pass"),
        ("policy/swap.py", "if node.measure.state != old.measure.state", "if False"),
    ],
    STORE: [
        ("store/artifact.py", 'sha256(content) != record["sha256"]', "False"),
        ("store/files.py", "os.fsync(stream.fileno())", "pass"),
    ],
    "tests/laws/test_determinism.py tests/compile/test_model.py tests/graph/test_plan.py": [
        ("graph/assemble.py", 'f"{seed}:{name}"', 'f"{seed}"'),
    ],
    "tests/config": [
        ("config/overrides.py", "if key in entries and not rest and override.value is None", "if False"),
        ("config/located_data.py", "MAX_DEPTH = 200", "MAX_DEPTH = 20_000"),
    ],
}

MUTANTS = [Mutant(*mutation, tests) for tests, mutations in _PLANNED.items() for mutation in mutations]

# What no test can see, and why.
EXPLAINED = {
    Mutant(
        "policy/actions.py",
        "log_prob, entropy = torch.where(some, log_prob, 0.0), torch.where(some, entropy, 0.0)",
        "log_prob = torch.where(some, log_prob, 0.0)",
        ACTIONS,
    ): "equivalent: the entropy of a row without a legal action is 0 before it",
}
