"""Training loops, environments, evaluation and what they write down."""
