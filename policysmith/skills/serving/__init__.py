"""Trained skills in use: judged from the beginning of their plans, and exported as policies."""
