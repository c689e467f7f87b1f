"""Makes mel_reference.npz: mel spectrograms by the original Wav2Lip formula, on librosa.

Not part of the environment: `pip install librosa==0.11.0 scipy==1.17.1` somewhere else, then run it from the root of
the repository. librosa 0.7, which the original names, pads its STFT by reflection; later versions must be told to.
"""

from __future__ import annotations

import wave
from pathlib import Path

import librosa
import numpy as np
from scipy.signal import lfilter

HERE = Path(__file__).parent
SPEECH = HERE.parents[1] / "speech" / "data" / "librivox_amiable.wav"
RATE = 16_000


def waves() -> dict[str, np.ndarray]:
    """Speech, a sweep that ends in digital silence, and a wave shorter than one window."""
    with wave.open(str(SPEECH)) as file:
        assert file.getframerate() == RATE
        speech = np.frombuffer(file.readframes(2 * RATE + 77), np.int16).astype(np.float32) / 32768
    seconds = np.arange(RATE) / RATE
    sweep = 0.8 * np.sin(2 * np.pi * (40 * seconds + 3900 * seconds**2))
    sweep = np.concatenate([sweep, np.zeros(RATE // 2)]).astype(np.float32)
    return {"speech": speech, "sweep": sweep, "short": speech[8000:8700]}


def original(samples: np.ndarray) -> np.ndarray:
    """Pre-emphasis, magnitude STFT, mel, decibels, -4..4: audio.py and hparams.py of Rudrabha/Wav2Lip as formulas."""
    spectrum = librosa.stft(
        y=lfilter([1, -0.97], [1], samples), n_fft=800, hop_length=200, win_length=800, pad_mode="reflect"
    )
    mel = librosa.filters.mel(sr=RATE, n_fft=800, n_mels=80, fmin=55, fmax=7600) @ np.abs(spectrum)
    decibels = 20 * np.log10(np.maximum(1e-5, mel)) - 20
    return np.clip(8 * ((decibels + 100) / 100) - 4, -4, 4).astype(np.float32)


if __name__ == "__main__":
    made = waves()
    arrays = {f"{name}_wave": samples for name, samples in made.items()}
    arrays |= {f"{name}_mel": original(samples) for name, samples in made.items()}
    np.savez_compressed(HERE / "mel_reference.npz", **arrays)
