from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.speech.channels import HOP, row_count
from app.speech.framing import Framing, windows

FRAMING = Framing(rows=7, before=3 * HOP + 50, after=2 * HOP + 30)


@given(samples=st.integers(0, 40 * HOP), cuts=st.lists(st.integers(0, 40 * HOP), max_size=12))
def test_windows_hold_what_the_stream_holds_however_it_is_cut(samples: int, cuts: list[int]) -> None:
    stream = np.linspace(0.1, 1.0, samples, dtype=np.float32)
    edges = sorted({0, samples, *(cut for cut in cuts if cut <= samples)})
    blocks = [stream[start:end] for start, end in pairwise(edges)]

    cut = list(windows(blocks, FRAMING))

    assert sum(rows for _, rows in cut) == row_count(samples)
    padded = np.concatenate([np.zeros(FRAMING.before), stream, np.zeros(FRAMING.window_samples + HOP)])
    for index, (window, _) in enumerate(cut):
        start = index * FRAMING.stride
        np.testing.assert_array_equal(window, padded[start : start + FRAMING.window_samples].astype(np.float32))


def test_samples_that_are_not_finite_are_silence_and_loud_ones_are_clipped() -> None:
    block = np.array([np.nan, np.inf, -np.inf, 3.0, -3.0, 0.5], dtype=np.float32)
    ((window, _),) = windows([block], FRAMING)
    np.testing.assert_array_equal(window[FRAMING.before :][:6], np.float32([0, 0, 0, 1, -1, 0.5]))


@pytest.mark.parametrize("block", [np.zeros((2, 10), np.float32), np.zeros(10, np.int16)])
def test_a_block_of_another_shape_or_type_is_refused(block: np.ndarray) -> None:
    with pytest.raises(ValueError, match="1-D floating point"):
        list(windows([block], FRAMING))


def test_windows_come_as_soon_as_their_samples_are_there() -> None:
    def endless():
        while True:
            yield np.zeros(1000, np.float32)

    stream = windows(endless(), FRAMING)
    assert [rows for _, rows in (next(stream) for _ in range(50))] == [FRAMING.rows] * 50
