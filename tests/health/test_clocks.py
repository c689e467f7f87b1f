"""The two clocks, judged without threads or time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.health.clocks import Health, Limits, Look, judge
from app.retry.taxonomy import FailureCode

LIMITS = Limits(strikes=3, phase_s={"render": 60.0})


def run(looks):
    """The index of the look that ended the attempt, and its failure."""
    health = Health.begin(Look(0.0, 0, 0, "render", 0, 0))
    for index, look in enumerate(looks):
        health, failure = judge(health, look, LIMITS)
        if failure is not None:
            return index, failure
    return None, None


def looks(beats, moves, step=5.0):
    return [Look((i + 1) * step, b, m, "render", m, 100) for i, (b, m) in enumerate(zip(beats, moves, strict=True))]


def test_three_silent_checks_in_a_row_are_unresponsive():  # R0.5
    index, failure = run(looks([5, 5, 5, 5], [1, 2, 3, 4]))
    assert index == 3
    assert failure.code is FailureCode.WORKER_UNRESPONSIVE


def test_two_silent_checks_and_a_good_one_are_not():  # R0.5
    assert run(looks([5, 5, 5, 6, 6, 6, 7], range(7))) == (None, None)


def test_work_that_stands_past_its_phase_is_stalled():
    index, failure = run(looks(range(1, 20), [1] * 19))
    assert index == 13  # moved at 5 s; the first look past 65 s is the one at 70 s
    assert failure.code is FailureCode.WORKER_STALLED
    assert "render" in failure.message


@given(st.lists(st.integers(1, 11), min_size=1, max_size=60))
def test_a_slow_job_that_moves_is_neither(pauses):
    """A move at least every 11 checks of 5 s stays below the 60 s of the phase."""
    moves: list[int] = []
    for count, pause in enumerate(pauses):
        moves += [count] * (pause - 1) + [count + 1]
    assert run(looks(range(1, len(moves) + 1), moves)) == (None, None)
