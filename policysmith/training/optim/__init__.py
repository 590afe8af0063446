"""Rules that update weights: optimisers, schedules, the guard of a step, averages of weights."""
