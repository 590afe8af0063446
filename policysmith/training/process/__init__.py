"""What a run shares with its process: generators of random numbers, threads, signals."""
