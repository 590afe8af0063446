"""Learning from recorded episodes: `offline.py` is the algorithm, `objectives/` what it minimises."""
