"""Durations that are not known exactly: what is left of them, and what they add up to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.forecast.spread import Spread, combine, known, remaining, spread_of, total

SPREADS = st.builds(Spread, st.floats(0.01, 1e5), st.floats(0.03, 2.0))


@given(whole=SPREADS, share=st.floats(0.0, 50.0), chance=st.floats(0.05, 0.95))
def test_what_is_left_is_a_number_and_never_negative(whole: Spread, share: float, chance: float) -> None:
    left = whole.left(whole.mid * share, chance)
    assert left >= 0.0
    assert math.isfinite(left)


@given(whole=SPREADS, at=st.floats(0.0, 5.0), more=st.floats(0.0, 1.0))
def test_the_expected_end_never_comes_nearer_by_waiting(whole: Spread, at: float, more: float) -> None:
    """What is left may shrink by the time that passed, and no faster: the moment of the end does not jump ahead."""
    earlier, later = whole.mid * at, whole.mid * (at + more)
    assert later + whole.left(later) >= (earlier + whole.left(earlier)) * (1 - 0.02)


def test_half_of_the_tasks_take_less_than_the_median_and_a_late_one_is_expected_to_take_longer() -> None:
    whole = Spread(10.0, 0.2)
    assert whole.left(0.0) == pytest.approx(10.0)
    assert whole.left(0.0, 0.9) > 12.0
    assert 4.9 < whole.left(5.0) < 5.1
    assert 0.5 < whole.left(12.0) < 3.0
    assert whole.left(30.0) > whole.left(15.0) * 0.5


@given(whole=SPREADS, at=st.floats(0.0, 3.0), more=st.floats(0.01, 3.0))
def test_the_chance_that_it_is_over_only_grows(whole: Spread, at: float, more: float) -> None:
    assert whole.strain(whole.mid * (at + more)) >= whole.strain(whole.mid * at)


def test_durations_one_after_the_other_add_up_and_become_surer_but_never_sure() -> None:
    ten = total([Spread(10.0, 0.4)] * 10)
    assert ten.mid == pytest.approx(100.0)
    assert 0.07 < ten.sigma < 0.4
    assert total([Spread(10.0, 0.01)] * 1000).sigma > 0.05


def test_the_surer_of_two_guesses_counts_more() -> None:
    both = combine(Spread(10.0, 0.1), Spread(20.0, 0.5))
    assert 10.0 < both.mid < 11.0
    assert both.sigma < 0.1


@given(mid=st.floats(0.01, 1e5), share=st.floats(0.05, 1.5))
def test_a_standard_deviation_in_seconds_is_kept(mid: float, share: float) -> None:
    spread = spread_of(mid, mid * share)
    assert math.sqrt(math.expm1(spread.sigma**2)) == pytest.approx(share, rel=1e-6)


def test_what_is_left_is_a_duration_of_its_own() -> None:
    rest = remaining(Spread(100.0, 0.1), 90.0)
    assert rest.mid == pytest.approx(Spread(100.0, 0.1).left(90.0))
    assert rest.sigma > 0.3, "the error stays in seconds, so it grows as a share"
    assert known(0.0).left(0.0) < 0.01
