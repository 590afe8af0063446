"""Skill modules: text that is checked without being run, rewritten for a run, and executed in a process of its own."""
