"""Sounds that are no speech, to judge the network with; made otherwise than those it was trained with."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from recordings import read_g722
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import butter, sosfilt

RATE = 16_000
Sound = npt.NDArray[np.float64]

MUSIC = Path("/usr/share/asterisk/moh")
"""Where Debian's asterisk-moh-opsound-g722 puts its recorded music (CC-BY-SA-3.0)."""


NAMES = ("white noise", "pink noise", "hum, 50 Hz", "hum, 60 Hz", "breathing", "music")


def disturbance(name: str, length: int, seed: int = 1) -> Sound:
    """So many samples of one of NAMES, of unit level. Raises KeyError for another name."""
    rng = np.random.default_rng(seed)
    make: dict[str, Callable[[], Sound]] = {
        "white noise": lambda: rng.normal(0.0, 1.0, length),
        "pink noise": lambda: _pink(rng.normal(0.0, 1.0, length)),
        "hum, 50 Hz": lambda: _hum(50.0, length),
        "hum, 60 Hz": lambda: _hum(60.0, length),
        "breathing": lambda: _breathing(length, rng),
        "music": lambda: _music(length),
    }
    sound = make[name]()
    return sound / sound.std()


def _pink(white: Sound) -> Sound:
    padded = next_fast_len(len(white), real=True)
    spectrum = rfft(white, padded)
    pink: Sound = irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 50)), padded)[: len(white)]
    return pink


def _hum(hertz: float, length: int) -> Sound:
    times = np.arange(length) / RATE
    return sum((np.sin(2 * np.pi * hertz * k * times) / k for k in (1, 2, 3, 5, 7)), np.zeros(length))


def _breathing(length: int, rng: np.random.Generator) -> Sound:
    """In through the nose, out through the mouth, fifteen times a minute."""
    times = np.arange(length) / RATE
    phase = times % 4.0
    parts = ((0.0, 1.3, (300, 1800), 0.5), (1.6, 1.8, (500, 4000), 1.0))
    breath = np.zeros(length)
    for begin, lasting, band, level in parts:
        within = np.clip((phase - begin) / lasting, 0.0, 1.0)
        noise = sosfilt(butter(2, band, "bandpass", fs=RATE, output="sos"), rng.normal(0.0, 1.0, length))
        breath += level * np.sin(np.pi * within) ** 2 * noise
    return breath


def _music(length: int) -> Sound:
    """An equal part of each of the recordings, one after another, and from the first again where all of them together
    are shorter. Raises FileNotFoundError without them."""
    recordings = _recordings()
    share = -(-length // len(recordings))
    pieces = [recording[5 * RATE :][:share].astype(np.float64) for recording in recordings]
    return np.resize(np.concatenate([piece / max(piece.std(), 1.0) for piece in pieces]), length)


@cache
def _recordings() -> list[npt.NDArray[np.int16]]:
    paths = sorted(MUSIC.glob("**/*.g722"))
    if not paths:
        raise FileNotFoundError(f"no music in {MUSIC}: install Debian's asterisk-moh-opsound-g722")
    return [read_g722(path) for path in paths]
