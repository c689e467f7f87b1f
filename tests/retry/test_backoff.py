"""The pauses before retries: formula, cap and distribution of every strategy, over many samples. # R3.6"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.retry.backoff import BackoffName, make_backoff
from app.retry.decision import decide
from app.retry.taxonomy import FAILURE_TABLE, Failure, FailureCode

NAMES = get_args(BackoffName)
SAMPLES = 4000
retries = st.integers(1, 2000)
delays = st.floats(0.001, 400)
caps = st.floats(0.01, 4000)


@pytest.fixture(autouse=True)
def same_numbers_each_time() -> Iterator[None]:
    state = random.getstate()
    random.seed(20260101)
    yield
    random.setstate(state)


def full(retry: int, first: float, cap: float) -> float:
    """The whole pause, as the formula says, without the overflow of large powers."""
    return cap if retry > 1000 else min(first * 2 ** (retry - 1), cap)


@given(st.sampled_from(NAMES), retries, delays, caps)
def test_no_pause_is_negative_or_over_the_cap(name, retry, first, cap):
    assert 0 <= make_backoff(name, cap)(retry, first) <= cap


@given(st.sampled_from(NAMES), retries, caps)
def test_a_first_delay_of_zero_retries_at_once(name, retry, cap):
    assert make_backoff(name, cap)(retry, 0.0) == 0.0


@given(retries, delays, caps, st.integers(0, 2**32))
def test_the_seed_formula_is_half_to_all_of_the_doubled_delay(retry, first, cap, seed):
    wait = make_backoff("seed", cap, uniform=random.Random(seed).uniform)(retry, first)
    assert wait == pytest.approx(full(retry, first, cap) * random.Random(seed).uniform(0.5, 1.0))


@given(retries, delays, caps)
def test_exponential_pauses_double_up_to_the_cap(retry, first, cap):
    assert make_backoff("exponential", cap)(retry, first) == pytest.approx(full(retry, first, cap))


@given(retries, delays, caps)
def test_fixed_pauses_are_all_the_same(retry, first, cap):
    assert make_backoff("fixed", cap)(retry, first) == pytest.approx(min(first, cap))


@given(retries, delays, caps)
def test_full_jitter_stays_within_the_doubled_delay(retry, first, cap):
    assert make_backoff("full_jitter", cap)(retry, first) <= full(retry, first, cap) * (1 + 1e-9)


@pytest.mark.parametrize(("name", "lowest"), [("seed", 0.5), ("full_jitter", 0.0)])
@pytest.mark.parametrize("retry", [1, 3, 9])
def test_random_pauses_are_spread_evenly(name, lowest, retry):
    """Mean and deciles of an even distribution, within what so many samples allow (over four standard errors)."""
    whole = full(retry, 1.0, 60.0)
    pause = make_backoff(name, 60.0)
    shares = [(pause(retry, 1.0) / whole - lowest) / (1 - lowest) for _ in range(SAMPLES)]
    assert statistics.mean(shares) == pytest.approx(0.5, abs=0.02)
    deciles = [sum(tenth / 10 <= share < (tenth + 1) / 10 for share in shares) for tenth in range(10)]
    assert all(count == pytest.approx(SAMPLES / 10, abs=80) for count in deciles)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code", [code for code in FailureCode if FAILURE_TABLE[code].retries])
def test_a_decision_takes_its_pause_from_the_chosen_strategy_and_its_row(name, code):
    asked = []

    def pause(retry: int, first: float) -> float:
        asked.append((retry, first))
        return make_backoff(name, 60.0)(retry, first)

    decision = decide(
        Failure(code), earlier=[FailureCode.INTERRUPTED], retries=0, max_retries=3, now=0.0, deadline_at=None,
        backoff=pause,
    )  # fmt: skip
    assert decision.end == "retry"
    assert asked == [(1, FAILURE_TABLE[code].first_delay_s)]
    assert decision.backoff_s <= FAILURE_TABLE[code].first_delay_s


def test_the_setting_offers_these_strategies_and_takes_the_seed_formula_by_itself():
    assert Settings().backoff == "seed"
    assert [Settings(backoff=name).backoff for name in NAMES] == list(NAMES)
    with pytest.raises(ValueError, match="backoff"):
        Settings(backoff="none")
