#!/bin/sh
set -eu  # creates benchmarks/.venv-sb3 once; the constraints keep torch the CPU build that we measure with
cd "$(dirname "$0")/../.." && venv=benchmarks/.venv-sb3
if [ -e $venv/ready ]; then exit 0; fi
python3 -m venv $venv && $venv/bin/python -m pip install -q -c constraints/torch.txt stable-baselines3 && touch $venv/ready
