"""What is told of a task that has not ended, and when to ask again (R1.6)."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.forecast.asking import ask_again, ask_blindly
from app.forecast.durations import Expected
from app.forecast.outlook import Running, foresee
from app.forecast.queueing import UNKNOWN, Turn
from app.forecast.running import Frames, whole
from app.forecast.spread import Spread

TOOK = Spread(20.0, 0.1)
SPREADS = st.builds(Spread, st.floats(0.05, 1e5), st.floats(0.03, 1.5))
REASONS = st.sampled_from(
    [None, "slot", "twin", "scheduled", "retry_backoff", "breaker_open", "review", "paused", "draining", "cancelling",
     "no_tier", "no_ready_slot", "a reason of the future"]
)  # fmt: skip


class TestARunningAttempt:
    def test_before_its_frames_its_kind_tells_and_without_a_kind_nobody(self) -> None:
        assert whole(Expected(TOOK, 0.0), None, 3.0) == TOOK
        assert whole(Expected(TOOK, 0.0), Frames(0, 100, 1.0), 3.0) == TOOK
        assert whole(None, Frames(0, 100, 1.0), 3.0) is None
        assert whole(None, None, 3.0) is None

    def test_its_own_pace_counts_the_more_the_more_frames_are_done(self) -> None:
        """Its kind says 20 s. It renders from second 2 on, and at a pace that makes it 42 s."""
        at = {done: whole(Expected(TOOK, 0.0), Frames(done, 100, 2.0), 2.0 + 0.4 * done) for done in (1, 25, 50, 95)}
        mids = [found.mid for found in at.values() if found]
        assert mids == sorted(mids)
        assert mids[0] < 22.0
        assert 24.0 < mids[2] < 42.0
        assert mids[3] > 37.0

    def test_without_a_kind_its_pace_tells(self) -> None:
        found = whole(None, Frames(25, 100, 2.0), 12.0)
        assert found is not None
        assert found.mid == pytest.approx(42.0)

    def test_what_comes_after_the_last_frame_is_counted(self) -> None:
        found = whole(Expected(Spread(42.0, 1.0), 0.25), Frames(50, 100, 2.0), 22.0)
        assert found is not None
        assert found.mid == pytest.approx(56.0, rel=0.05)

    @given(
        kind=st.none() | st.builds(Expected, SPREADS, st.floats(0.0, 0.9)),
        done=st.integers(-1, 500),
        total=st.integers(-1, 500),
        since=st.floats(0.0, 100.0),
        elapsed=st.floats(0.0, 1000.0),
    )
    def test_whatever_it_reports_the_rest_is_never_negative(
        self, kind: Expected | None, done: int, total: int, since: float, elapsed: float
    ) -> None:
        found = whole(kind, Frames(done, total, since), elapsed)
        assert found is None or (found.left(elapsed) >= 0.0 and math.isfinite(found.left(elapsed)))
        assert (found is None) <= (kind is None), "a kind that is known is never forgotten"

    def test_the_expected_end_moves_smoothly_with_the_frames(self) -> None:
        ends = []
        for done in range(1, 100):
            elapsed = 2.0 + 0.3 * done
            found = whole(Expected(TOOK, 0.1), Frames(done, 100, 2.0), elapsed)
            assert found is not None
            ends.append(elapsed + found.left(elapsed))
        steps = [abs(later - earlier) for earlier, later in itertools.pairwise(ends)]
        assert max(steps) < 1.0, "the moment of the end moves by less than a second from one look to the next"


class TestWhenToAsk:
    @given(spread=SPREADS, elapsed=st.floats(0.0, 1e6), most=st.integers(1, 300))
    def test_it_is_bounded(self, spread: Spread, elapsed: float, most: int) -> None:
        assert 1 <= ask_again(spread, elapsed, most=most) <= most

    def test_far_from_the_end_one_asks_shortly_before_it_and_near_it_every_second(self) -> None:
        first = ask_again(Spread(60.0, 0.05))
        assert 45 <= first <= 60
        assert ask_again(Spread(60.0, 0.05), 59.0) <= 2
        assert ask_again(Spread(1.0, 0.1)) == 1

    def test_the_less_is_known_the_sooner_and_the_more_often(self) -> None:
        assert ask_again(Spread(100.0, 0.05)) > ask_again(Spread(100.0, 0.2)) > ask_again(Spread(100.0, 0.8))

    def test_what_is_long_overdue_is_asked_for_ever_more_rarely(self) -> None:
        seconds = [ask_again(Spread(10.0, 0.1), elapsed) for elapsed in (12.0, 100.0, 1000.0)]
        assert seconds == sorted(seconds)

    def test_where_nothing_is_known_a_tenth_of_the_age(self) -> None:
        assert [ask_blindly(age) for age in (0.0, 15.0, 100.0, 1e9)] == [2, 2, 10, 60]


class TestATask:
    def test_that_runs_tells_its_end_and_no_wait(self) -> None:
        told = foresee(None, running=Running(TOOK, 5.0))
        assert told.wait_s is None
        assert told.eta_s == pytest.approx(15.0, rel=0.01)

    def test_that_waits_tells_both(self) -> None:
        told = foresee("slot", turn=Turn("warp", Spread(30.0, 0.1), Spread(50.0, 0.1)), takes=TOOK)
        assert (told.wait_s, told.eta_s) == pytest.approx((30.0, 50.0))
        later = foresee("slot", turn=Turn("warp", Spread(30.0, 0.1), Spread(50.0, 0.1)), turn_age_s=10.0, takes=TOOK)
        assert (later.wait_s, later.eta_s) == pytest.approx((20.0, 40.0), rel=0.01)

    def test_for_which_a_slot_is_free_does_not_wait(self) -> None:
        told = foresee("slot", turn=Turn("warp", None, TOOK, waits=False), takes=TOOK)
        assert (told.wait_s, told.eta_s) == (0.0, pytest.approx(20.0))

    def test_that_is_scheduled_waits_for_its_time_and_is_asked_for_after_it(self) -> None:
        told = foresee("scheduled", until_s=100.0, takes=TOOK)
        assert (told.wait_s, told.eta_s) == pytest.approx((100.0, 120.0))
        assert 110 <= told.again_s <= 120
        assert foresee("scheduled", until_s=1e6).again_s == 3600
        assert foresee("retry_backoff", until_s=7.2).again_s == 8

    def test_that_follows_an_equal_one_ends_with_it(self) -> None:
        told = foresee("twin", running=Running(TOOK, 5.0))
        assert told.eta_s == told.wait_s == pytest.approx(15.0, rel=0.01)

    @pytest.mark.parametrize("reason", ["paused", "draining", "no_ready_slot", "no_tier", "review", "breaker_open"])
    def test_of_which_nobody_can_know_tells_nothing(self, reason: str) -> None:
        told = foresee(reason, turn=Turn("warp", None, TOOK, waits=False), takes=TOOK, age_s=50.0)
        assert (told.wait_s, told.eta_s, told.again_s) == (None, None, 5)

    def test_whose_turn_nobody_knows_tells_nothing(self) -> None:
        told = foresee("slot", turn=UNKNOWN, takes=TOOK)
        assert (told.wait_s, told.eta_s) == (None, None)

    @given(
        reason=REASONS,
        until_s=st.none() | st.floats(-1e6, 1e9),
        age_s=st.floats(-1e3, 1e9),
        running=st.none() | st.builds(Running, SPREADS, st.floats(0.0, 1e6)),
        turn=st.none() | st.builds(Turn, st.just("warp"), st.none() | SPREADS, st.none() | SPREADS, st.booleans()),
        turn_age_s=st.floats(0.0, 1e4),
        takes=st.none() | SPREADS,
    )
    def test_nothing_negative_is_told_and_asking_again_is_bounded(self, **given_: object) -> None:
        told = foresee(**given_)  # type: ignore[arg-type]
        assert told.wait_s is None or told.wait_s >= 0.0
        assert told.eta_s is None or told.eta_s >= 0.0
        assert 1 <= told.again_s <= 3600
        if told.wait_s is not None and told.eta_s is not None:
            assert told.eta_s >= told.wait_s * (1 - 1e-9)
