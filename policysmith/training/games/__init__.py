"""Games for two: who plays, learning by self-play, and matches that judge a policy."""
