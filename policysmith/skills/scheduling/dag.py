"""Which skills must be trained before which: an order in which ready ones may run side by side.

In: for each skill those it needs. Out: what is ready, what a failure blocks, and cycles by name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

__all__ = ["SkillOrder", "needed", "one_cycle"]


class SkillOrder:
    """The skills of `needs` (skill → those it needs, all of them keys), minus what is `done` already.

    Each step costs as much as the skill has neighbours, however many skills there are.
    """

    def __init__(self, needs: Mapping[str, Collection[str]], done: Collection[str] = ()) -> None:
        self._sorter = TopologicalSorter(
            {skill: [n for n in needs[skill] if n not in done] for skill in needs if skill not in done}
        )
        self._sorter.prepare()
        self._users: dict[str, list[str]] = {}
        for skill, wanted in needs.items():
            for name in wanted:
                self._users.setdefault(name, []).append(skill)

    def ready(self) -> tuple[str, ...]:
        """Those that have become ready since the last call."""
        return self._sorter.get_ready()

    def finish(self, skill: str) -> None:
        """A skill is done: others may become ready."""
        self._sorter.done(skill)

    def behind(self, skill: str, known: Collection[str] = ()) -> Iterator[str]:
        """Every skill that needs this one, directly or not; what is `known` is not gone into again."""
        seen, todo = {skill}, deque([skill])
        while todo:
            for user in self._users.get(todo.popleft(), ()):
                if user not in seen and user not in known:
                    seen.add(user)
                    todo.append(user)
                    yield user


def needed(needs: Mapping[str, Collection[str]], skills: Iterable[str], done: Collection[str] = ()) -> set[str]:
    """These skills and everything that they need, directly or not, and that is not done."""
    found: set[str] = set()
    todo = [skill for skill in skills if skill not in done]
    while todo:
        skill = todo.pop()
        if skill not in found:
            found.add(skill)
            todo += [name for name in needs[skill] if name not in done]
    return found


def one_cycle(needs: Mapping[str, Collection[str]]) -> list[str]:
    """Skills of which each needs the next and the last the first again, the first written twice; empty if none."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # graphlib tells them the other way round
    return []
