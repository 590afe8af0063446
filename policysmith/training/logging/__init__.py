"""What a run tells people: reports, loggers, the progress bar, histories and plots."""
