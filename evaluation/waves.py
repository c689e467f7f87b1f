"""Speech to evaluate with: wav files, cut to a length that is a whole number of frames."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.media.audio_in import audio_blocks

RATE = 16_000


def write_wave(path: Path, samples: npt.NDArray[np.float32]) -> Path:
    """Mono, 16 bits, 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return path


def shortened(voices: dict[str, Path], seconds: float, folder: Path) -> dict[str, Path]:
    """The first `seconds` of each voice and a second of silence, as files in `folder`."""
    length, silence = round(seconds * RATE), np.zeros(RATE, np.float32)
    beginnings = {name: np.concatenate(list(audio_blocks(path, RATE)))[:length] for name, path in voices.items()}
    return {
        name: write_wave(folder / f"{name}.wav", np.concatenate([samples, silence]))
        for name, samples in beginnings.items()
    }
