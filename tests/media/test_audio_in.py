"""Speech in: every format, any channel count, bad samples, exact lengths."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from app.media.audio_in import audio_blocks, audio_length
from app.retry.taxonomy import CodedError, FailureCode
from tests.media.makers import tone, write_audio, write_video, write_wav


def samples(path: Path, rate: int = 16_000) -> np.ndarray:
    return np.concatenate(list(audio_blocks(path, rate)))


FORMATS = [
    ("a.wav", "pcm_s16le", 44_100),
    ("a.mp3", "libmp3lame", 44_100),
    ("a.m4a", "aac", 44_100),
    ("a.flac", "flac", 48_000),
    ("a.ogg", "libopus", 48_000),
    ("a.opus", "libopus", 48_000),
    ("a.webm", "libopus", 48_000),
    ("a.mkv", "aac", 48_000),
]


@pytest.mark.parametrize(("name", "codec", "rate"), FORMATS)
def test_every_format_becomes_mono_at_16_khz(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    path = write_audio(tmp_path / name, codec, 1.0, rate)
    heard = samples(path)
    assert heard.dtype == np.float32
    assert heard.ndim == 1
    assert audio_length(path) == len(heard)
    assert abs(len(heard) - 16_000) <= 400  # AAC pads its last packet
    assert 0.4 < np.abs(heard[4000:12_000]).max() < 0.6
    spectrum = np.abs(np.fft.rfft(heard[:16_000]))
    assert abs(int(spectrum.argmax()) - 220) <= 2


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_downmix_keeps_the_level(tmp_path: Path, channels: int) -> None:
    path = write_wav(tmp_path / "c.wav", tone(0.5, 16_000, channels))
    assert np.abs(samples(path)).max() == pytest.approx(16_000 / 32_768, abs=0.02)


def test_nan_and_infinity_become_silence_and_do_not_spread(tmp_path: Path) -> None:
    wave = (tone(1.0).astype(np.float32) / 32_768).copy()
    wave[4000:4010] = np.nan
    wave[8000] = np.inf
    wave[8001] = -np.inf
    wave[12_000] = 1e30
    heard = samples(write_wav(tmp_path / "nan.wav", wave), 8000)
    assert len(heard) == 8000
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 1.0
    assert np.abs(heard[5000:5900]).max() > 0.4


def test_length_is_exact_for_awkward_rates(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "odd.wav", tone(1.2345, 11_025), 11_025)
    assert audio_length(path, 11_025) == round(1.2345 * 11_025)
    assert audio_length(path, 16_000) == len(samples(path)) == pytest.approx(1.2345 * 16_000, abs=2)


def test_a_header_that_promises_more_is_measured(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "lie.wav", tone(1.0), declared_bytes=10**9)
    assert audio_length(path) == 16_000


def test_sound_of_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", 25, audio="aac")
    assert audio_length(path) == pytest.approx(16_000, abs=400)


def test_blocks_are_small_whatever_the_length(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "long.wav", np.zeros((16_000 * 120, 1), np.int16))
    assert max(len(block) for block in audio_blocks(path)) < 16_000


@pytest.mark.parametrize(
    "name", ["with space.wav", 'it\'s "quoted".wav', "Grüße 你好 🎤.wav", "http:x.wav", "%03d.wav"]
)
def test_names_are_only_names(tmp_path: Path, name: str) -> None:
    assert audio_length(write_wav(tmp_path / name, tone(0.1))) == 1600


def test_what_has_no_sound_is_refused(tmp_path: Path, refused) -> None:
    mute = write_video(tmp_path / "mute.mp4", 5)
    refused(lambda: audio_length(mute), FailureCode.INPUT_INVALID, "no_audio_stream")
    empty = write_wav(tmp_path / "empty.wav", tone(0))
    refused(lambda: audio_length(empty), FailureCode.INPUT_INVALID, "no_samples")
    refused(lambda: audio_length(tmp_path / "absent.wav"), FailureCode.INPUT_NOT_FOUND)
    text = tmp_path / "text.wav"
    text.write_text("not sound at all " * 100)
    refused(lambda: audio_length(text), FailureCode.INPUT_INVALID, "unknown_format")


def test_the_length_of_a_file_that_was_replaced_is_counted_anew(tmp_path):
    path = tmp_path / "speech.wav"
    for seconds in (1, 3, 1):
        with wave.open(str(path), "wb") as out:
            out.setparams((1, 2, 16_000, 0, "NONE", ""))
            out.writeframes(bytes(2 * 16_000 * seconds))
        assert audio_length(path) == 16_000 * seconds
    path.unlink()
    with pytest.raises(CodedError) as caught:
        audio_length(path)
    assert caught.value.code is FailureCode.INPUT_NOT_FOUND
