"""Slow twins: the same mathematics written as plainly as possible."""
