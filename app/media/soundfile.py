"""Speech as a plain WAV file, which every program reads."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from app.media.audio_in import audio_blocks
from app.media.containers import write_error

_FULL_SCALE = 32767


def write_wav(source: Path, path: Path, rate: int) -> int:
    """Write the speech of `source` to `path`: 16 bits, mono, `rate` samples/s. Returns the number of samples.

    Raises CodedError: INPUT_NOT_FOUND, INPUT_INVALID or DISK_FULL.
    """
    samples = 0
    try:
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            for block in audio_blocks(source, rate):
                file.writeframes(np.round(block * _FULL_SCALE).astype("<i2").tobytes())
                samples += len(block)
    except OSError as error:
        raise write_error(error, path.name) from error
    return samples
