"""Training runs: which experts one holds, its folder, and how its results are stored in the library."""
