"""Cuts a stream of audio blocks of any sizes into equal, overlapping windows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from app.speech.channels import HOP, FloatArray, row_count


@dataclass(frozen=True)
class Framing:
    """How a stream is cut: each window yields `rows` rows and sees `before` and `after` samples around them."""

    rows: int
    before: int
    after: int

    @property
    def window_samples(self) -> int:
        """Length of each window: from `before` ahead of its first row's instant to `after` past its last's."""
        return self.before + (self.rows - 1) * HOP + self.after

    @property
    def stride(self) -> int:
        """Samples from the start of one window to the start of the next."""
        return self.rows * HOP


def windows(blocks: Iterable[FloatArray], framing: Framing) -> Iterator[tuple[FloatArray, int]]:
    """Yield (window, rows that count) over the stream, silence standing for what lies beyond its ends.

    The windows depend on the samples alone and not on how `blocks` cuts them, so whatever is computed from
    them does not either. Every window has `framing.window_samples` samples; only in the last one can fewer
    than `framing.rows` rows count. At most one window and the current block are held in memory.

    Raises ValueError for a block that is not one-dimensional floating point.
    """
    window = np.zeros(framing.window_samples, dtype=np.float32)
    filled = framing.before
    samples = emitted = 0

    def take() -> FloatArray:
        nonlocal filled
        taken = window.copy()
        window[: -framing.stride] = taken[framing.stride :]
        window[-framing.stride :] = 0.0
        filled = max(filled - framing.stride, 0)
        return taken

    for block in blocks:
        clean = _cleaned(block)
        samples += clean.size
        used = 0
        while used < clean.size:
            piece = clean[used : used + window.size - filled]
            window[filled : filled + piece.size] = piece
            filled += piece.size
            used += piece.size
            if filled == window.size:
                yield take(), framing.rows
                emitted += framing.rows
    while (left := row_count(samples) - emitted) > 0:
        counting = min(left, framing.rows)
        yield take(), counting
        emitted += counting


def _cleaned(block: FloatArray) -> FloatArray:
    """The block as float32 in -1..1; samples that are not finite become silence."""
    if block.ndim != 1 or not np.issubdtype(block.dtype, np.floating):
        raise ValueError(f"audio block must be 1-D floating point, got {block.ndim}-D {block.dtype}")
    audible = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(audible, -1.0, 1.0).astype(np.float32, copy=False)
