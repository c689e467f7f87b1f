from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.face.smoothing import fill_absent, runs, smooth

presence = st.lists(st.booleans(), max_size=40).map(lambda values: np.array(values, dtype=np.bool_))


@given(presence)
def test_runs_cover_exactly_the_present_frames(present: np.ndarray) -> None:
    covered = np.zeros_like(present)
    for start, end in runs(present):
        assert start < end
        assert not covered[start:end].any()
        covered[start:end] = True
    assert (covered == present).all()


@given(presence, st.floats(-3, 3), st.floats(-3, 3))
def test_a_parabola_passes_unchanged(present: np.ndarray, speed: float, curve: float) -> None:
    time = np.arange(len(present), dtype=np.float32)
    path = np.repeat((5 + speed * time + curve * time**2)[:, None, None], 3, axis=2).astype(np.float32)
    assert np.allclose(smooth(path, present), path, rtol=1e-4, atol=1e-2)


def test_noise_shrinks_and_nothing_lags() -> None:
    noise = np.random.default_rng(1).normal(size=(400, 2, 3)).astype(np.float32)
    present = np.ones(400, dtype=np.bool_)
    assert smooth(noise, present).std() < 0.75 * noise.std()
    step = np.zeros((21, 1, 3), dtype=np.float32)
    step[10] = 1
    answer = smooth(step, present[:21])[:, 0, 0]
    assert np.allclose(answer, answer[::-1], atol=1e-6)


def test_runs_do_not_leak_into_each_other() -> None:
    path = np.zeros((20, 1, 3), dtype=np.float32)
    path[10:] = 100
    present = np.ones(20, dtype=np.bool_)
    present[9] = False
    assert np.allclose(smooth(path, present), path, atol=1e-4)


def test_absent_frames_take_the_nearest_points() -> None:
    path = np.arange(6, dtype=np.float32)[:, None, None].repeat(3, axis=2)
    present = np.array([False, True, False, False, True, False])
    assert fill_absent(path, present)[:, 0, 0].tolist() == [1, 1, 1, 4, 4, 4]
    assert fill_absent(path, np.zeros(6, dtype=np.bool_)) is path
