"""The gate's arithmetic: which frames are looked at, and what lips, sound and stillness score."""

from __future__ import annotations

import numpy as np
import pytest

from app.quality import scoring
from app.quality.picture import longest_run
from app.quality.sound import compare, correlation
from app.quality.speech import Demand, demand_of, middles, telling_frames
from app.speech.channels import CLOSURE, JAW, REST, SPEECH

FPS = 25.0
FRAMES = 250


@pytest.fixture(scope="module")
def demand() -> Demand:
    """Ten seconds of syllables of uneven length, with a second of silence in the middle."""
    random = np.random.default_rng(3)
    curve = np.repeat(REST[None], 1000, 0)
    at = 0
    while at < 1000:
        length = int(random.integers(12, 35))
        curve[at : at + length, JAW] = np.hanning(length)[: len(curve[at : at + length])] * random.uniform(0.3, 1)
        at += length
    curve[:, SPEECH] = 1
    curve[450:550] = REST
    return demand_of(curve, FPS)


def seen(demand: Demand, late_s: float = 0.0, noise: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """When a reader looked, and what lips `late_s` behind the speech showed it."""
    numbers = telling_frames(demand, FRAMES, FPS, 32)
    seconds = middles(numbers, FPS)
    return seconds, 0.2 * demand.at(seconds, late_s) + np.random.default_rng(0).normal(0, noise * 0.2, len(seconds))


def test_lips_in_time_score_high(demand: Demand) -> None:
    sync = scoring.lip_sync(demand, *seen(demand))
    assert sync is not None
    assert sync.agreement > 0.9
    assert abs(sync.lag_s) <= 0.02
    assert min(sync.scores().values()) > 0.9


@pytest.mark.parametrize("frames", [2, 5, 10, -2, -5, -10])
def test_a_shift_is_seen_and_measured(demand: Demand, frames: int) -> None:
    sync = scoring.lip_sync(demand, *seen(demand, frames / FPS))
    assert sync is not None
    assert abs(sync.lag_s - frames / FPS) <= 0.03
    assert min(sync.scores().values()) < scoring.ACCEPTED


def test_lips_that_say_something_else_do_not_follow(demand: Demand) -> None:
    seconds, openings = seen(demand)
    sync = scoring.lip_sync(demand, seconds, np.random.default_rng(5).permutation(openings))
    assert sync is not None
    assert sync.scores()["lips_follow"] < scoring.ACCEPTED


def test_lips_that_stand_still_do_not_move(demand: Demand) -> None:
    seconds, openings = seen(demand)
    sync = scoring.lip_sync(demand, seconds, np.full(len(openings), 0.03))
    assert sync is not None
    assert sync.scores()["mouth_moves"] == 0
    assert sync.scores()["lips_follow"] == 0


def test_a_mouth_that_stands_open_in_silence_does_not_rest(demand: Demand) -> None:
    seconds, openings = seen(demand)
    open_mouth = np.where(demand.is_quiet(seconds), 0.15, openings)
    sync = scoring.lip_sync(demand, seconds, open_mouth)
    assert sync is not None
    assert sync.scores()["mouth_rests"] < scoring.ACCEPTED


def test_too_little_speech_is_not_judged(demand: Demand) -> None:
    seconds, openings = seen(demand)
    assert scoring.lip_sync(demand, seconds[:8], openings[:8]) is None
    silent = demand_of(np.repeat(REST[None], 1000, 0), FPS)
    assert scoring.lip_sync(silent, seconds, openings) is None


def test_the_frames_looked_at_lie_all_over_the_video_with_silent_ones_among_them(demand: Demand) -> None:
    numbers = telling_frames(demand, FRAMES, FPS, 40)
    assert numbers == sorted(set(numbers))
    assert 30 <= len(numbers) <= 40
    assert max(np.diff(numbers)) <= 25
    assert demand.is_quiet(middles(numbers, FPS)).sum() >= 3
    assert telling_frames(demand, 5, FPS, 40) == [0, 1, 2, 3, 4]
    assert telling_frames(demand_of(np.zeros((0, 6), np.float32), FPS), 3, FPS, 24)


def test_closures_ask_for_shut_lips() -> None:
    curve = np.repeat(REST[None], 100, 0)
    curve[:, JAW] = 0.6
    curve[40:60, CLOSURE] = 1
    opening = demand_of(curve, FPS).opening
    assert opening[50] == 0
    assert opening[20] == pytest.approx(0.6)


def test_a_delay_of_sound_is_measured_to_ten_milliseconds() -> None:
    sent = np.abs(np.random.default_rng(1).normal(30, 10, 600))
    made = np.concatenate([np.zeros(8), sent])[:600]
    assert compare(sent, made) == (pytest.approx(1.0, abs=0.02), 0.08)
    assert compare(made, sent)[1] == -0.08  # type: ignore[index]
    assert compare(sent, 0.5 * sent) == (pytest.approx(1.0), 0.0)
    assert compare(sent, np.zeros(600))[0] <= 0  # type: ignore[index]
    assert compare(sent, np.zeros(0))[0] <= 0  # type: ignore[index]
    assert compare(np.full(600, 3.0), sent) is None, "there is nothing to compare with"


def test_correlation_of_a_constant_is_nothing() -> None:
    assert correlation(np.ones(10), np.arange(10.0)) == 0
    assert correlation(np.arange(10.0), -np.arange(10.0)) == pytest.approx(-1)


def test_runs_are_counted() -> None:
    assert longest_run(np.array([True, False, True, True, True, False])) == 3
    assert longest_run(np.zeros(4, np.bool_)) == 0
    assert longest_run(np.ones(4, np.bool_)) == 4


def test_the_confidence_is_the_weakest_score() -> None:
    assert scoring.confidence({"a": 0.9, "b": 0.4}) == 0.4
    assert scoring.confidence({}) == 1.0
    assert scoring.ramp(0.5, (1.0, 0.0)) == 0.5
    assert scoring.ramp(-3, (0.0, 1.0)) == 0
