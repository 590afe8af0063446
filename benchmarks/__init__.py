"""Speed of policysmith beside its peers: `python -m benchmarks [names...]`; numbers in RESULTS.md."""
