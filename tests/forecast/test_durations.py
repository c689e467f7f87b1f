"""What an attempt takes, learned from those that succeeded."""

from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.forecast.durations import Durations, Work, work_of

TIER = "warp"


def work(seconds: float, shape: str = "image/18", style: str = "", warm: bool | None = None, tier: str = TIER) -> Work:
    return Work(tier, seconds, shape, style, warm)


def expected(durations: Durations, of: Work) -> float:
    found = durations.expect(of)
    assert found is not None
    return found.took.mid


def taught(*pairs: tuple[Work, float]) -> Durations:
    durations = Durations()
    for of, took in pairs:
        durations.learn(of, took)
    return durations


def test_what_never_ended_is_not_guessed() -> None:
    assert Durations().expect(work(10)) is None
    assert taught((work(10), 5.0)).expect(work(10, tier="other")) is None


def test_one_attempt_is_enough_for_a_first_guess_with_doubt() -> None:
    durations = taught((work(10), 5.0))
    assert expected(durations, work(10)) == pytest.approx(5.0)
    assert 5.0 < expected(durations, work(20)) < 10.0
    found = durations.expect(work(10))
    assert found is not None
    assert found.took.sigma > 0.15


def test_beginning_and_seconds_per_second_are_told_apart() -> None:
    durations = taught(*((work(seconds), 4.0 + 0.5 * seconds) for seconds in (2, 60, 5, 30, 9, 44, 15)))
    assert expected(durations, work(120)) == pytest.approx(64.0, rel=0.01)
    assert expected(durations, work(1)) == pytest.approx(4.5, rel=0.01)


def test_outliers_change_nothing() -> None:
    chance = random.Random(1)
    durations = Durations()
    for n in range(40):
        seconds = chance.uniform(2, 60)
        durations.learn(work(seconds), (20 if n % 7 == 3 else 1) * (2.0 + 0.4 * seconds))
    assert expected(durations, work(30)) == pytest.approx(14.0, rel=0.1)


def test_a_kind_without_attempts_is_judged_by_the_coarser_one_and_its_own_attempts_take_over() -> None:
    durations = taught(*((work(10), 5.0) for _ in range(10)))
    large = work(10, shape="video/21")
    assert expected(durations, large) == pytest.approx(5.0)
    durations.learn(large, 50.0)
    assert expected(durations, large) > 10.0
    for _ in range(8):
        durations.learn(large, 50.0)
    assert expected(durations, large) == pytest.approx(50.0, rel=0.1)
    assert expected(durations, work(10)) == pytest.approx(5.0, rel=0.1)


def test_an_analysed_template_is_another_kind() -> None:
    durations = Durations()
    for seconds in (5, 10, 20, 40, 5, 10, 20, 40):
        durations.learn(work(seconds, "video/20", warm=False), 30.0 + seconds)
        durations.learn(work(seconds, "video/20", warm=True), 1.0 + seconds)
    assert expected(durations, work(10, "video/20", warm=False)) == pytest.approx(40.0, rel=0.1)
    assert expected(durations, work(10, "video/20", warm=True)) == pytest.approx(11.0, rel=0.1)


def test_a_machine_that_became_slower_is_noticed_within_ten_tasks() -> None:
    durations = taught(*((work(10), 5.0) for _ in range(50)))
    for _ in range(10):
        durations.learn(work(10), 10.0)
    assert expected(durations, work(10)) == pytest.approx(10.0, rel=0.15)


def test_the_spread_is_that_of_the_errors() -> None:
    chance = random.Random(2)
    durations = Durations()
    for _ in range(60):
        seconds = chance.uniform(2, 60)
        durations.learn(work(seconds), (2.0 + 0.4 * seconds) * math.exp(chance.gauss(0, 0.25)))
    found = durations.expect(work(30))
    assert found is not None
    assert 0.15 < found.took.sigma < 0.4


def test_the_share_after_the_last_frame_is_learned() -> None:
    durations = Durations()
    durations.learn(work(10), 10.0, 2.0)
    found = durations.expect(work(10))
    assert found is not None
    assert found.after_frames == pytest.approx(0.2)


@given(
    samples=st.lists(st.tuples(st.floats(0, 4000), st.floats(0, 1e5)), min_size=1, max_size=60),
    asked=st.floats(0, 4000),
)
def test_whatever_is_learned_a_guess_is_positive_and_finite(samples: list[tuple[float, float]], asked: float) -> None:
    durations = taught(*((work(seconds), took) for seconds, took in samples))
    found = durations.expect(work(asked))
    assert found is not None
    assert found.took.mid > 0.0
    assert math.isfinite(found.took.mid)
    assert found.took.sigma > 0.0


def test_memory_is_bounded() -> None:
    durations = taught(*((work(1, style=str(n)), 1.0) for n in range(3000)))
    assert len(durations._kinds) <= 2000
    assert durations.expect(work(1, style="2999")) is not None


def test_a_guess_costs_next_to_nothing() -> None:
    durations = taught(*((work(n % 50), 1.0 + n % 50) for n in range(500)))
    durations.expect(work(3))
    began = time.perf_counter()
    for n in range(1000):
        durations.expect(work(n))
    assert time.perf_counter() - began < 0.5


def test_work_is_told_apart_by_what_the_probe_found() -> None:
    audio = {"kind": "audio", "duration_s": 12.5}
    portrait = {"kind": "image", "width": 512, "height": 512}
    template = {"kind": "video", "width": 1280, "height": 720}
    still = work_of("warp", source=portrait, audio=audio, options={}, seen=True)
    assert (still.seconds, still.shape, still.warm) == (12.5, "image/18", None)
    moving = work_of("warp", source=template, audio=audio, options={}, seen=True)
    assert (moving.shape, moving.warm) == ("video/20", True)
    one = work_of("warp", source=portrait, audio=audio, options={"a": 1, "b": 2}, seen=False)
    same = work_of("warp", source=portrait, audio=audio, options={"b": 2, "a": 1}, seen=False)
    assert one == same != still
    of_a_video = {"kind": "video", "duration_s": 90.0, "audio_duration_s": 7.0}
    assert work_of("warp", source=portrait, audio=of_a_video, options={}, seen=False).seconds == 7.0
    assert work_of("warp", source={}, audio={}, options={}, seen=False).seconds == 0.0
