"""`policysmith new`: an experiment file to start from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from policysmith.cli.output import command_line, facts, shown_path, write_file
from policysmith.errors import PolicysmithError

__all__ = ["new", "starter"]

TEMPLATE = """\
# An experiment: an environment, the policy that acts in it, and how it learns.
#
#   policysmith check {file}   every mistake at once, with its line
#   policysmith show {file}    shapes, parameters, memory
#   policysmith train {file}   train, evaluate, store
#
# Any value can be changed from the command line: policysmith train {file} model.hidden=[128]
# `policysmith schema --output policysmith.schema.json` lets editors complete this file.

format: 1
seed: 0 # every random number follows from it

environment:
  id: {environment}
  num_envs: 8 # copies that are played at the same time
{observation}
model:
  type: mlp # `policysmith list models` shows the others; `graph` wires components of your own
  hidden: [64, 64] # the widths of the layers of the actor, and of the critic
  activation: tanh # `policysmith list activations`

training:
  type: ppo
  total_steps: 204_800 # transitions, all copies together
  rollout_steps: 128 # transitions of each copy between two updates
  learning_rate: {{type: linear, start: 1.0e-3, end: 1.0e-4}} # or a number

evaluation:
  episodes: 100 # after training; `policysmith eval` repeats it at any time
"""


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    env: Annotated[str, typer.Option("--env", metavar="ID", help="The environment (CartPole-v1).")] = "CartPole-v1",
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented experiment file to start from.

    Examples:
        policysmith new policy.yaml
        policysmith new pendulum.yaml --env Pendulum-v1
    """
    if file.exists() and not force:
        raise PolicysmithError(f"{file} exists already: choose another name, or write over it with --force")
    shown = shown_path(file)
    write_file(file, starter(shown, env))
    typer.echo(f"wrote {shown}\n")
    facts({"next": [command_line(["policysmith", word, shown]) for word in ("check", "show", "train")]})


def starter(file: str, environment: str) -> str:
    """The text of the file."""
    from policysmith.config.yaml_text import core_scalar

    text = environment.startswith(("MiniGrid-", "BabyAI-"))
    observation = "\nobservation: {exclude: [mission]} # text, which no network reads\n" if text else ""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*", environment) and core_scalar(environment) == environment
    shown = environment if plain else json.dumps(environment)
    return TEMPLATE.format(file=command_line([file]), environment=shown, observation=observation)
