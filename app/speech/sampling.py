"""Reads a 100 Hz articulation curve at the instants of video frames."""

import numpy as np
import numpy.typing as npt

from app.speech.channels import CLOSURE, HOP, LABIODENTAL, REST, ROWS_PER_SECOND, SAMPLE_RATE, FloatArray

_PEAKED = (CLOSURE, LABIODENTAL)
"""Channels read by their peak: a /p/ can be over within 50 ms and would fall between frames 40 ms apart."""

_LONE_FRAME_S = 1 / 25
"""How long a frame is taken to last when it comes alone and its neighbours are not known."""

_LONGEST_REACH_S = 0.05
"""No frame looks further than this for a closure, so that a slide show's does not show its neighbour's."""

_PROBE_S = HOP / SAMPLE_RATE / 2
"""Spacing of the instants at which a peak is looked for: two to a row, so that none is missed."""


def sample_at(curve: FloatArray, times_s: npt.ArrayLike) -> FloatArray:
    """Articulation at each of the given instants, for a video at any frame rate.

    jaw, width, protrusion and speech are interpolated linearly. closure and labiodental are the greatest
    value within half a frame to either side (a frame reaches half way to its neighbours, at most 50 ms), so
    that lips which meet at all meet in some frame. Before the first row and after the last the pose is `REST`.

    curve: [m, 6] as `SpeechAnalyser.analyse` gives it, m may be 0. times_s: [n] seconds since the first
    sample, ascending. Returns [n, 6] float32. Raises ValueError for other shapes or times out of order.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if curve.ndim != 2 or curve.shape[1] != REST.size:
        raise ValueError(f"curve must be [m, {REST.size}], got {list(curve.shape)}")
    if times.ndim != 1 or np.any(np.diff(times) < 0):
        raise ValueError("times must be one-dimensional and ascending")
    framed = np.concatenate([REST[None], curve, REST[None]])
    row_times = (np.arange(len(framed)) - 1) / ROWS_PER_SECOND

    sampled = np.stack([np.interp(times, row_times, column) for column in framed.T], axis=1)
    if times.size:
        before, after = _reach(times)
        steps = np.linspace(-1.0, 1.0, 1 + 2 * int(np.ceil(_LONGEST_REACH_S / _PROBE_S)))
        reach = np.where(steps[None] < 0, before[:, None], after[:, None])
        probes = times[:, None] + steps[None] * reach
        for channel in _PEAKED:
            sampled[:, channel] = np.interp(probes, row_times, framed[:, channel]).max(axis=1)
    return sampled.astype(np.float32)


def _reach(times: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Seconds that each frame reaches back and on: half the gap; the outermost as far as they do inwards."""
    gaps = np.diff(times) if times.size > 1 else np.array([_LONE_FRAME_S])
    half = np.minimum(np.concatenate([gaps[:1], gaps, gaps[-1:]]) / 2, _LONGEST_REACH_S)
    if times.size == 1:
        half = half[:2]
    return half[:-1], half[1:]
