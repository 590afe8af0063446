"""Proximal policy optimisation, from a rollout to updated weights: read `ppo.py` first."""
