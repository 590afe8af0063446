"""The plugin's own test: its type keeps every law that policysmith's own types keep."""

from snakes import Snake

from policysmith.testing import check_part


def test_snake_keeps_the_laws():
    check_part(Snake, [6], options={"frequency": 0.5})
