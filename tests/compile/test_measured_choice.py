"""Choosing the fastest way by measurement, with a clock that the test winds."""

import itertools
import logging

import pytest

from policysmith.compile.measured_choice import HOPELESS, ROUNDS, WARM_UPS, Choice, fastest

PLAIN, AMP, COMPILED = Choice(False, False), Choice(True, False), Choice(False, True)


class Clock:
    """Time passes only in calls: each takes the next of its own durations, in seconds."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        return self.now

    def call(self, name, *durations, warm_ups=1):
        """A call that takes these durations in turn once it is warm."""
        spent = itertools.chain([0.0] * warm_ups, itertools.cycle(durations))

        def run():
            self.log.append(name)
            self.now += next(spent)

        return run


def choose(**durations):
    clock, names = Clock(), {"plain": PLAIN, "amp": AMP, "compiled": COMPILED}
    calls = {
        names[n]: clock.call(n, *spent, warm_ups=WARM_UPS if n == "compiled" else 1) for n, spent in durations.items()
    }
    chosen, times = fastest(calls, clock, lambda: None)
    return chosen, times, clock.log


@pytest.mark.parametrize(
    ("amp", "expected"), [(0.5, AMP), (0.89, AMP), (0.91, PLAIN), (1.0, PLAIN), (3.0, PLAIN)], ids=str
)
def test_what_is_clearly_faster_is_taken(amp, expected):
    assert choose(plain=[1.0], amp=[amp])[0] == expected


def test_the_fastest_of_several_is_taken():
    chosen, times, _ = choose(plain=[1.0], amp=[0.8], compiled=[0.5])
    assert chosen == COMPILED
    assert times == {PLAIN: 1.0, AMP: 0.8, COMPILED: 0.5}


def test_a_few_slow_runs_do_not_decide():
    assert choose(plain=[1.0], amp=[0.5, 3.0, 0.5, 0.5])[0] == AMP
    assert choose(plain=[1.0], amp=[1.1, 0.1, 1.1, 1.1])[0] == PLAIN


def test_runs_take_turns():
    _, _, log = choose(plain=[1.0], amp=[0.9], compiled=[0.8])
    warm = ["plain", "amp", *["compiled"] * WARM_UPS]
    assert log == [*warm, *["plain", "amp", "compiled"] * ROUNDS]


def test_what_is_hopeless_is_not_run_again():
    chosen, times, log = choose(plain=[1.0], amp=[HOPELESS * 1.1])
    assert chosen == PLAIN
    assert times == {PLAIN: 1.0}
    assert log.count("amp") == 2
    assert log.count("plain") == ROUNDS + 1


def test_what_fails_is_out_and_the_log_says_why(caplog):
    caplog.set_level(logging.INFO, "policysmith")
    clock = Clock()

    def fails():
        raise RuntimeError("no C++ compiler\nand more")

    chosen, times = fastest({PLAIN: clock.call("plain", 1.0), COMPILED: fails}, clock, lambda: None)
    assert chosen == PLAIN and set(times) == {PLAIN}
    assert caplog.messages == ["compile does not work here: RuntimeError: no C++ compiler and more"]


def test_a_failure_of_the_plain_call_is_the_callers():
    def fails():
        raise ValueError("shape")

    with pytest.raises(ValueError, match="shape"):
        fastest({PLAIN: fails, AMP: lambda: None}, Clock(), lambda: None)


def test_the_device_has_finished_before_and_after_a_run_is_timed():
    events, clock = [], Clock()

    def timer():
        events.append("time")
        return clock()

    fastest({PLAIN: lambda: events.append("run")}, timer, lambda: events.append("wait"))
    assert events == ["run", *["wait", "time", "run", "wait", "time"] * ROUNDS]


def test_choices_in_words():
    assert [str(Choice(a, c)) for c in (False, True) for a in (False, True)] == [
        "plain", "amp", "compile", "amp + compile",
    ]  # fmt: skip
