"""What other libraries call our options: a file that names one of theirs is told ours.

Names only; whole files of theirs are read by grammars. Each value is the path of our option, with what else there is to
know after a colon. A name that several libraries give to different things has an entry for each.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["OPTIONS", "TYPES"]

_BY_SIZE = "training.minibatches: our option is their number, num_envs × rollout_steps divided by this size"
_IN_TOTAL = "training.rollout_steps: ours counts the steps of one environment, so divide by num_envs"
_SHARES = "model.shared"
_WIDTHS = "model.hidden"
_NO_GSDE = "nothing here: noise that depends on the state is not offered; model.std: dependent learns its size"
_ADAPTIVE = "training.target_kl: there is no schedule by the KL divergence; target_kl ends an update early"

_SB3 = {
    "policy": "model.type",
    "n_steps": "training.rollout_steps",
    "batch_size": _BY_SIZE,
    "n_epochs": "training.epochs",
    "clip_range": "training.clip",
    "clip_range_vf": "training.value_clip",
    "ent_coef": "training.entropy_coef",
    "vf_coef": "training.value_coef",
    "use_sde": _NO_GSDE,
    "sde_sample_freq": _NO_GSDE,
    "tensorboard_log": "training.loggers",
    "policy_kwargs": "model: its options stand beside model.type",
    "n_envs": "environment.num_envs",
    "n_timesteps": "training.total_steps",
    "total_timesteps": "training.total_steps",
    "env_wrapper": "environment.wrappers",
    "env_kwargs": "environment.options",
    "frame_stack": "environment.wrappers: [{type: FrameStackObservation, stack_size: …}]",
    "normalize": "observation.normalize",
    "eval_freq": "evaluation.every: ours counts the steps of all environments together",
    "n_eval_episodes": "evaluation.episodes",
    "save_freq": "training.checkpoint_every: ours counts the steps of all environments together",
    "net_arch": _WIDTHS,
    "activation_fn": "model.activation: a name such as tanh",
    "ortho_init": "a component's init: weights are orthogonal by default",
    "log_std_init": "model.initial_std: a deviation, where theirs is its logarithm",
    "share_features_extractor": _SHARES,
    "features_extractor_class": "model.type",
    "optimizer_class": "training.optimizer",
    "lstm_hidden_size": "hidden_size: of a component of type lstm",
    "n_lstm_layers": "num_layers: of a component of type lstm",
    "squash_output": "model.squash",
    "normalize_images": "observation.scale: bytes are divided by 255 by default",
}
_CLEANRL = {
    "env_id": "environment.id",
    "gym_id": "environment.id",
    "num_steps": "training.rollout_steps",
    "num_minibatches": "training.minibatches",
    "update_epochs": "training.epochs",
    "clip_coef": "training.clip",
    "clip_vloss": "training.value_clip: a bound, where theirs takes that of the ratio",
    "ent_coef": "training.entropy_coef",
    "vf_coef": "training.value_coef",
    "norm_adv": "training.normalize_advantage",
    "anneal_lr": "training.learning_rate: {type: linear, start: …, end: 0}",
    "total_timesteps": "training.total_steps",
    "capture_video": "policysmith record: --video, after training",
    "torch_deterministic": "seed: a seed alone makes runs alike",
}
_SKRL = {
    "rollouts": "training.rollout_steps",
    "learning_epochs": "training.epochs",
    "mini_batches": "training.minibatches",
    "discount_factor": "training.gamma",
    "lambda": "training.gae_lambda",
    "ratio_clip": "training.clip",
    "value_clip": "training.value_clip",
    "entropy_loss_scale": "training.entropy_coef",
    "value_loss_scale": "training.value_coef",
    "grad_norm_clip": "training.max_grad_norm",
    "kl_threshold": "training.target_kl",
    "learning_rate_scheduler": "training.learning_rate: a schedule stands in place of the number",
    "state_preprocessor": "observation.normalize",
    "observation_preprocessor": "observation.normalize",
    "timesteps": "training.total_steps: ours counts all environments together, so multiply by num_envs",
    "initial_log_std": "model.initial_std: a deviation, where theirs is its logarithm",
    "min_log_std": "model.log_std_min",
    "max_log_std": "model.log_std_max",
    "layers": _WIDTHS,
}
_RL_GAMES = {
    "horizon_length": "training.rollout_steps",
    "mini_epochs": "training.epochs",
    "minibatch_size": _BY_SIZE,
    "num_actors": "environment.num_envs",
    "tau": "training.gae_lambda",
    "e_clip": "training.clip",
    "clip_value": "training.value_clip: a bound, where theirs takes that of the ratio",
    "critic_coef": "training.value_coef",
    "grad_norm": "training.max_grad_norm",
    "truncate_grads": "training.max_grad_norm",
    "normalize_input": "observation.normalize",
    "lr_schedule": _ADAPTIVE,
    "seq_length": "training.sequence_length",
    "seq_len": "training.sequence_length",
    "score_to_win": "training.solved_at",
    "save_frequency": "training.checkpoint_every: in steps, where theirs are iterations",
    "env_name": "environment.id",
    "units": _WIDTHS,
    "fixed_sigma": "model.std: independent is theirs when true, dependent when false",
    "separate": "model.shared: the opposite",
}
_RLLIB = {
    "env": "environment.id",
    "env_config": "environment.options",
    "num_envs_per_worker": "environment.num_envs",
    "num_envs_per_env_runner": "environment.num_envs",
    "num_workers": "environment.vectorization: async runs each environment in a process",
    "num_rollout_workers": "environment.vectorization: async runs each environment in a process",
    "num_env_runners": "environment.vectorization: async runs each environment in a process",
    "train_batch_size": _IN_TOTAL,
    "train_batch_size_per_learner": _IN_TOTAL,
    "rollout_fragment_length": "training.rollout_steps",
    "sgd_minibatch_size": _BY_SIZE,
    "minibatch_size": _BY_SIZE,
    "num_sgd_iter": "training.epochs",
    "num_epochs": "training.epochs",
    "lr": "training.learning_rate",
    "lr_schedule": "training.learning_rate: a schedule stands in place of the number",
    "lambda": "training.gae_lambda",
    "lambda_": "training.gae_lambda",
    "clip_param": "training.clip",
    "vf_clip_param": "training.value_clip",
    "vf_loss_coeff": "training.value_coef",
    "entropy_coeff": "training.entropy_coef",
    "grad_clip": "training.max_grad_norm",
    "kl_target": "training.target_kl: an update ends early there; ours has no penalty",
    "fcnet_hiddens": _WIDTHS,
    "fcnet_activation": "model.activation",
    "vf_share_layers": _SHARES,
    "lstm_cell_size": "hidden_size: of a component of type lstm",
    "max_seq_len": "training.sequence_length",
    "evaluation_interval": "evaluation.every: in steps, where theirs are iterations",
    "evaluation_duration": "evaluation.episodes",
    "free_log_std": "model.std: independent is theirs when true",
}
_TORCHRL = {
    "frames_per_batch": _IN_TOTAL,
    "total_frames": "training.total_steps",
    "sub_batch_size": _BY_SIZE,
    "mini_batch_size": _BY_SIZE,
    "ppo_epochs": "training.epochs",
    "lmbda": "training.gae_lambda",
    "clip_epsilon": "training.clip",
    "clip_value": "training.value_clip",
    "entropy_coeff": "training.entropy_coef",
    "entropy_bonus": "training.entropy_coef: 0 leaves it out",
    "critic_coeff": "training.value_coef",
    "critic_coef": "training.value_coef",
    "num_cells": _WIDTHS,
    "activation_class": "model.activation: a name such as tanh",
    "depth": "model.hidden: as many widths",
}

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "Stable-Baselines3": _SB3,
    "CleanRL": _CLEANRL,
    "skrl": _SKRL,
    "rl_games": _RL_GAMES,
    "RLlib": _RLLIB,
    "TorchRL": _TORCHRL,
}
"""Library → its name of an option → the path of ours."""

_PPO = "ppo is what trains online; an algorithm of your own is registered in the slot 'algorithm'"
TYPES: Mapping[tuple[str, str], str] = {
    ("model", "MlpPolicy"): "write mlp",
    ("model", "MultiInputPolicy"): "write mlp",
    ("model", "CnnPolicy"): "write graph, with a component of type nature, as `policysmith new` writes it for images",
    ("model", "MlpLstmPolicy"): "write graph, with a component of type lstm",
    ("model", "CnnLstmPolicy"): "write graph, with components of types nature and lstm",
    **{("algorithm", name): _PPO for name in ("a2c", "dqn", "sac", "td3", "ddpg", "trpo", "impala", "appo", "ars")},
}
"""(slot, name of a type elsewhere) → what to write here, or what there is in its place."""
