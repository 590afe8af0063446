"""Proximal policy optimisation (arXiv 1707.06347), in the order in which an iteration goes through the files.

1. `ppo.py`: the algorithm's options, the loop over iterations (`learn`) and the updates of one (`update`).
2. `../rollout/collector.py`: the policy acts, and what it met becomes a `Rollout`.
3. `advantages.py`: how much better each action was than expected.
4. `minibatches.py`: the rollout is cut into rows, or into sequences where the policy remembers;
   `global_minibatches.py`: what several processes agree on of each.
5. `loss.py`: surrogate, value, entropy; `value_objectives.py` and `game_outcomes.py`: what the value learns from.
6. `../optim/optimizers.py`: backward, clipping, step.
7. `statistics.py`: running statistics take in the rollout, before the policy acts again.
"""
