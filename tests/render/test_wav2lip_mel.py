"""The mel front end: the original's numbers, whatever the length and however the wave is cut."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from app.render.wav2lip import mel_spectrogram
from app.render.wav2lip.mel import mel_filters, mel_pieces
from app.render.wav2lip.profile import WAV2LIP
from app.render.wav2lip.voice import Voice, listen
from tests.render.scenes import SAMPLES

REFERENCE = Path(__file__).parent / "data" / "mel_reference.npz"
RATE = Fraction(25)


@pytest.mark.parametrize("name", ["speech", "sweep", "short"])
def test_it_equals_the_original(name: str) -> None:
    with np.load(REFERENCE) as made:
        wave, expected = made[f"{name}_wave"], made[f"{name}_mel"]
    mel = mel_spectrogram(torch.from_numpy(wave)).numpy()
    assert mel.shape == expected.shape
    assert np.abs(mel - expected).max() < 1e-3


@pytest.mark.parametrize("block", [1, 199, 401, 4096])
def test_cuts_leave_no_trace(block: int) -> None:
    wave = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 0.1
    whole = mel_spectrogram(wave)
    assert torch.equal(torch.cat(list(mel_pieces(wave.split(block), WAV2LIP.mel)), 1), whole)


@pytest.mark.parametrize("samples", [1, 2, 200, 400, 401])
def test_the_shortest_waves_have_columns(samples: int) -> None:
    mel = mel_spectrogram(torch.full((samples,), 0.5))
    assert mel.shape == (80, 1 + samples // 200)
    assert bool(mel.isfinite().all())


def test_silence_is_the_floor() -> None:
    assert bool((mel_spectrogram(torch.zeros(4000)) == -4).all())


@pytest.mark.parametrize("wave", [torch.zeros(0), torch.zeros(2, 100)])
def test_what_is_no_wave_is_refused(wave: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="vector of samples"):
        mel_spectrogram(wave)


def test_each_filter_has_one_peak_within_its_band() -> None:
    filters = mel_filters(WAV2LIP.mel)
    assert filters.shape == (80, 401)
    assert bool((filters.sum(1) > 0).all())
    assert bool((filters.argmax(1).diff() >= 0).all())
    assert filters[:, :3].sum() == 0, "nothing below 55 Hz"
    assert filters[:, 381:].sum() == 0, "nothing above 7600 Hz"


def test_each_frame_hears_the_sixteen_columns_from_its_own_time_on() -> None:
    mel = torch.arange(100.0).expand(80, 100)
    voice = Voice(mel, 99 * 200, WAV2LIP)
    windows = voice.windows(0, 30, RATE)
    assert windows.shape == (30, 1, 80, 16)
    assert windows[:, 0, 0, 0].tolist() == [float(int(n * 3.2)) for n in range(30)]
    assert windows[7, 0, 3].tolist() == [float(22 + n) for n in range(16)]
    assert windows[29, 0, 0, 7:].tolist() == [99.0, *[-4.0] * 8], "silence follows the speech"
    assert torch.equal(torch.cat([voice.windows(n, 5, RATE) for n in range(0, 30, 5)]), windows)


def test_a_voice_has_all_frames_of_its_length() -> None:
    voice = listen(SAMPLES / "speech.wav", WAV2LIP, lambda columns: None)
    assert voice.frame_count(RATE) == 151
    assert voice.mel.shape == (80, 1 + voice.samples // 200)
