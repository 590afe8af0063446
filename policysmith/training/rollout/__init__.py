"""A policy acts in environments: to learn from it, to judge it, to record it."""
