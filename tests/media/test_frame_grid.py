"""Frame times: pure arithmetic against naive models."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.media.frame_grid import MAX_GRID, as_rate, constant_grid, nominal_rate, pingpong


def naive_pingpong(n: int, count: int) -> list[int]:
    order: list[int] = []
    position, step = 0, 1
    for _ in range(count):
        order.append(position)
        if not 0 <= position + step < n:
            step = -step
        if n > 1:
            position += step
    return order


@given(st.integers(1, 60), st.integers(0, 400))
def test_pingpong_is_the_naive_walk(n: int, count: int) -> None:
    assert pingpong(n, count).tolist() == naive_pingpong(n, count)


@given(st.integers(2, 1000), st.integers(2, 5000))
def test_pingpong_never_jumps_nor_stands_still(n: int, count: int) -> None:
    assert set(np.abs(np.diff(pingpong(n, count))).tolist()) == {1}


@pytest.mark.parametrize(("n", "count"), [(0, 5), (-1, 5), (3, -1)])
def test_pingpong_refuses_nonsense(n: int, count: int) -> None:
    with pytest.raises(ValueError, match="pingpong"):
        pingpong(n, count)


@given(st.sampled_from([Fraction(n) for n in (12, 24, 25, 30, 50, 60)] + [Fraction(30000, 1001)]), st.integers(1, 2000))
def test_constant_rate_maps_one_to_one_in_spite_of_millisecond_ticks(rate: Fraction, n: int) -> None:
    seconds = np.round(np.arange(n) / float(rate) * 1000) / 1000
    grid = constant_grid(seconds - seconds[0], float(1 / rate), rate)
    assert grid.tolist() == list(range(n))
    if n > 3:
        assert float(nominal_rate(seconds)) == pytest.approx(float(rate), rel=0.01)
    if n > 100:
        assert nominal_rate(seconds) == rate


@given(st.lists(st.floats(0.001, 0.5), min_size=1, max_size=100), st.sampled_from([10, 25, 30, 60]))
def test_variable_rate_shows_the_nearest_past_frame(steps: list[float], fps: int) -> None:
    seconds = np.concatenate([[0.0], np.cumsum(steps)])
    grid = constant_grid(seconds, 1 / fps, Fraction(fps))
    assert abs(len(grid) / fps - (seconds[-1] + 1 / fps)) <= 1 / fps + 1e-6
    assert (np.diff(grid) >= 0).all()
    shown_at = seconds[grid]
    wanted_at = np.arange(len(grid)) / fps
    assert (shown_at <= wanted_at + 0.5 / fps + 1e-4).all()


def test_double_rate_takes_every_other_frame_and_half_rate_repeats() -> None:
    seconds = np.arange(10) / 50
    assert constant_grid(seconds, 0.02, Fraction(25)).tolist() == [0, 2, 4, 6, 8]
    assert constant_grid(seconds[:3], 0.02, Fraction(100)).tolist() == [0, 0, 1, 1, 2, 2]


def test_timestamps_of_a_year_are_refused() -> None:
    with pytest.raises(ValueError, match="timestamps"):
        constant_grid(np.array([0.0, 3.2e7]), 0.04, Fraction(25))
    assert MAX_GRID >= 3600 * 60


@pytest.mark.parametrize(
    ("given_rate", "exact"),
    [(25, Fraction(25)), (29.97, Fraction(30000, 1001)), (23.976, Fraction(24000, 1001)), (12.5, Fraction(25, 2))],
)
def test_rates_become_exact(given_rate: float, exact: Fraction) -> None:
    assert as_rate(given_rate) == exact


@pytest.mark.parametrize("bad", [0, -1, 1001, float("nan"), float("inf")])
def test_bad_rates_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="frame rate"):
        as_rate(bad)


@pytest.mark.parametrize(("fps", "shown"), [(1, 20), (3, 21), (6.4, 25.6), (9.5, 28.5), (10, 10), (12, 12)], ids=str)
def test_a_slide_show_is_played_at_a_multiple_that_lips_can_be_read_at(fps: float, shown: float) -> None:
    assert float(nominal_rate(np.arange(30) / fps)) == pytest.approx(shown, rel=0.001)
    assert float(nominal_rate(np.arange(3) * 60.0)) == 20  # a picture a minute


def test_slow_motion_is_played_at_sixty() -> None:
    assert nominal_rate(np.arange(240) / 240) == 60
