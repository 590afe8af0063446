"""Experts: the model that holds many, their checkpoints, and single ones on disk."""
