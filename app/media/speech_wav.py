"""Speech for other programs: the plainest file that all of them read."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

from app.media.audio_in import audio_blocks, audio_length

RATE = 16_000
"""What speech models listen at, in samples/s."""


def write_speech_wav(audio: Path, target: Path, report: Callable[[int, int], None]) -> None:
    """Write the sound of `audio` as 16-bit mono wav at `RATE`. `report` is told of samples done and in all.

    Raises as `audio_blocks` does, and OSError.
    """
    total, done = audio_length(audio, RATE), 0
    with wave.open(str(target), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        for block in audio_blocks(audio, RATE):
            out.writeframes((block * 32_767).round().astype("<i2").tobytes())
            done += len(block)
            report(done, total)
