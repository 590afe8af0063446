"""A run from its first iteration to its artifact: online and offline, its folder, checkpoints and resuming."""
