"""Training many skills: a file says which, and a scheduler trains them side by side, each in a process of its own."""
