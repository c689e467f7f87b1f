import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.speech.channels import CLOSURE, JAW, REST, SPEECH, WIDTH
from app.speech.sampling import sample_at


def curve_of(rows: int) -> np.ndarray:
    return np.tile(REST, (rows, 1))


@given(
    fps=st.sampled_from([23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0]),
    sealed_at=st.integers(10, 180),
    begins=st.floats(0.0, 0.04),
)
def test_a_closure_of_20_ms_shows_in_some_frame_at_any_rate(fps: float, sealed_at: int, begins: float) -> None:
    curve = curve_of(200)
    curve[sealed_at : sealed_at + 3, CLOSURE] = 1.0
    frames = sample_at(curve, begins + np.arange(int(2 * fps)) / fps)
    assert frames[:, CLOSURE].max() > 0.95


def test_other_channels_are_interpolated_where_the_frame_is() -> None:
    curve = curve_of(100)
    curve[:, JAW] = np.linspace(0.0, 0.99, 100)
    sampled = sample_at(curve, [0.105, 0.5, 0.72])
    np.testing.assert_allclose(sampled[:, JAW], [0.105, 0.5, 0.72], atol=1e-6)


def test_a_closure_belongs_to_the_frames_next_to_it_only() -> None:
    curve = curve_of(100)
    curve[50, CLOSURE] = 1.0
    sampled = sample_at(curve, np.arange(25) / 25)
    assert set(np.flatnonzero(sampled[:, CLOSURE] > 0.01)) <= {12, 13}


def test_frames_sampled_in_batches_are_those_sampled_at_once() -> None:
    curve = np.random.default_rng(0).random((300, 6), dtype=np.float32)
    times = np.arange(75) / 25
    batches = [sample_at(curve, times[start : start + 16]) for start in range(0, 64, 16)]
    np.testing.assert_allclose(np.concatenate(batches), sample_at(curve, times)[:64], atol=1e-5)


def test_beyond_the_audio_the_pose_is_rest() -> None:
    curve = np.ones((10, 6), dtype=np.float32)
    np.testing.assert_array_equal(sample_at(curve, [0.5, 2.0]), np.stack([REST, REST]))
    np.testing.assert_array_equal(sample_at(curve[:0], [0.0]), REST[None])
    assert sample_at(curve, []).shape == (0, 6)


def test_values_stay_in_range() -> None:
    curve = np.random.default_rng(1).random((50, 6), dtype=np.float32)
    sampled = sample_at(curve, np.arange(40) / 60)
    assert sampled.min() >= 0.0
    assert sampled.max() <= 1.0
    assert sampled.dtype == np.float32
    assert sampled[:, [WIDTH, SPEECH]].shape == (40, 2)


@pytest.mark.parametrize(("curve", "times"), [(np.zeros((5, 4)), [0.0]), (np.zeros((5, 6)), [1.0, 0.0])])
def test_another_shape_or_times_out_of_order_are_refused(curve: np.ndarray, times: list[float]) -> None:
    with pytest.raises(ValueError):
        sample_at(curve.astype(np.float32), times)
