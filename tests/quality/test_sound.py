"""The loudness that the sound of a video is compared by."""

from __future__ import annotations

import numpy as np
import pytest

from app.quality.sound import HOPS_PER_SECOND, loudness

RATE = 16_000


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161, 16_000, 40_007])
@pytest.mark.parametrize("block", [1024, 372, 16_000, 50_000])
def test_loudness_does_not_depend_on_how_the_sound_is_cut(samples: int, block: int) -> None:
    sound = np.random.default_rng(samples).uniform(-0.5, 0.5, samples).astype(np.float32)
    pieces = [sound[at : at + block] for at in range(0, samples, block)]
    whole = [20 * np.log10(np.sqrt(np.square(sound[at : at + 160], dtype=np.float64).mean()) / 1e-3)
             for at in range(0, samples, 160)]  # fmt: skip
    assert len(whole) == -(-samples * HOPS_PER_SECOND // RATE)
    np.testing.assert_allclose(loudness(pieces), np.maximum(whole, 0), atol=1e-6)
