"""policysmith builds reinforcement-learning policies from data."""
