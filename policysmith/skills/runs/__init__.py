"""Training runs: which experts one holds, its folder, and how its results come home."""
