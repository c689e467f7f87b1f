"""s and z: heard in the samples, and seen as teeth that are nearly together."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.render.film import points
from app.render.warp.animation import Animator
from app.render.warp.compositor import Compositor
from app.render.warp.renderer import WarpRenderer
from app.render.warp.subject import Subject, teeth_plate
from app.render.warp.voice import Voice, listen
from app.speech.channels import SPEECH
from tests.render.scenes import RATE, SAMPLES, ScriptedSpeech
from tests.render.test_warp_gaze import photo
from tests.render.test_warp_picture import CPU, look

S = torch.tensor([0.06, 0.5, 0.03, 0.0, 0.0, 1.0])
ONE = torch.ones(1)


def noise(seconds: float, low: float, high: float, loudness: float) -> npt.NDArray[np.float64]:
    """Noise between two frequencies, of that root mean square."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    samples = np.fft.irfft(spectrum, count)
    return samples * (loudness / np.sqrt(np.mean(samples**2)))


def vowel(seconds: float) -> npt.NDArray[np.float64]:
    time = np.arange(round(seconds * RATE)) / RATE
    return sum(0.2 / n * np.sin(2 * np.pi * 130 * n * time) for n in range(1, 20))


def heard(folder: Path, *parts: npt.NDArray[np.float64], speaking: bool = True) -> Voice:
    with wave.open(str(folder / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.concatenate(parts).clip(-1, 1) * 32767).astype(np.int16).tobytes())
    seconds = sum(map(len, parts)) / RATE
    return listen(folder / "a.wav", ScriptedSpeech([(seconds, {SPEECH: float(speaking)})]), lambda _: None)


QUIET = np.zeros(RATE // 5)


def test_what_has_its_energy_above_four_kilohertz_hisses_and_vowels_do_not(tmp_path: Path) -> None:
    hiss = heard(tmp_path, QUIET, vowel(0.3), noise(0.15, 4500, 7500, 0.04), vowel(0.3), QUIET).hiss
    assert hiss[55:60].min() > 0.9
    assert hiss[22:44].max() < 0.1
    assert hiss[72:].max() < 0.1


@pytest.mark.parametrize(
    ("sound", "speaking"),
    [
        (noise(0.15, 100, 2200, 0.1), True),  # h, and k before o
        (noise(0.15, 4500, 7500, 0.002), True),  # breath
        (noise(0.15, 4500, 7500, 0.04), False),  # a hi-hat
    ],
    ids=["dull", "faint", "nobody speaks"],
)
def test_nothing_else_hisses(tmp_path: Path, sound: npt.NDArray[np.float64], speaking: bool) -> None:
    assert heard(tmp_path, QUIET, vowel(0.3), sound, vowel(0.3), QUIET, speaking=speaking).hiss.max() < 0.1


def test_noise_beneath_the_speech_does_not_hiss_in_its_gaps(tmp_path: Path) -> None:
    speech = np.concatenate([vowel(0.3), QUIET, vowel(0.3), QUIET])
    beneath = noise(len(speech) / RATE, 0, 8000, 0.1 * np.sqrt(np.mean(vowel(0.3) ** 2)))
    assert heard(tmp_path, speech + beneath).hiss.max() < 0.1


def test_the_recorded_sentence_hisses_where_it_has_an_s(renderer: WarpRenderer) -> None:
    assert renderer.speech is not None
    voice = listen(SAMPLES / "speech.wav", renderer.speech, lambda _: None)
    assert len(voice.hiss) == len(voice.curve)
    times = np.flatnonzero(voice.hiss > 0.5) / 100
    spoken = ((3.65, 3.88), (4.33, 4.53), (5.55, 5.86))  # "still", "respectable", "was"
    assert all(((times > first) & (times < last)).any() for first, last in spoken)
    assert all(any(first < time < last for first, last in spoken) for time in times)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 300), first=st.integers(0, 60), fps=st.sampled_from([10, 25, 30, 60]))
def test_hiss_does_not_depend_on_how_frames_are_batched(rows: int, first: int, fps: int) -> None:
    hiss, rate = np.random.default_rng(rows).random(rows, np.float32), Fraction(fps)
    voice = Voice(np.zeros((rows, 6), np.float32), rows * 160, np.zeros(rows, np.float32), hiss)
    assert np.allclose(voice.hissing(first, 8, rate), voice.hissing(0, first + 8, rate)[first:], atol=1e-5)


def opening(subject: Subject, said: Tensor, hiss: Tensor, strength: float = 1.0) -> float:
    shape = Animator(subject.rest, strength).pose(said[None], hiss).shape[0]
    return float(shape[points.INNER_LOWER[5], 1] - shape[points.INNER_UPPER[5], 1])


def test_lips_part_before_the_teeth_unless_they_have_something_else_to_do() -> None:
    subject = look(photo("london_136"))
    assert 0.05 < opening(subject, S, ONE) < 0.09
    assert opening(subject, S, ONE, strength=0.0) == pytest.approx(0.0, abs=1e-5)
    sealed, bitten, pouting, wide = (S.clone() for _ in range(4))
    sealed[3], bitten[4], pouting[2], wide[0] = 1.0, 1.0, 1.0, 0.9
    for said in (sealed, bitten, wide):
        assert opening(subject, said, ONE) == pytest.approx(opening(subject, said, 0 * ONE), abs=1e-4)
    assert opening(subject, pouting, ONE) < 0.06


def test_the_chin_stays_when_the_lips_part_to_hiss() -> None:
    animator = Animator(look(photo("london_136")).rest, 1.0)
    silent, hissing = (animator.pose(S[None], amount).shape[0] for amount in (0 * ONE, ONE))
    assert float((hissing - silent)[points.CHIN_TIP, 1].abs()) < 0.015


def between_lips(picture: Tensor, said: Tensor, hiss: float) -> tuple[Tensor, Tensor]:
    """Brightness of the pixels between the lips in the middle of the mouth, row by row [n], and of the skin."""
    subject = look(picture)
    frames = picture[None].clone()
    compositor = Compositor(subject, teeth_plate(subject, picture, 0), CPU, picture)
    face = Animator(subject.rest, 1.0).pose(said[None], torch.tensor([hiss]))
    zero = torch.zeros(1, dtype=torch.long)
    compositor.render_into(frames, zero, zero, face)
    places = subject.poses.to_pixels(face.shape)[0, :, :2]
    (left, top), (_, bottom) = (places[lip[5]].tolist() for lip in (points.INNER_UPPER, points.INNER_LOWER))
    columns = slice(round(left) - 5, round(left) + 6)
    rows = frames[0, round(top + 1) : round(bottom), columns].float().mean((1, 2))
    return rows, teeth_plate(subject, picture, 0).light.mean()


@pytest.mark.parametrize("name", ["hopper", "london_034", "london_045", "london_092", "london_136", "london_140"])
def test_teeth_fill_the_opening_of_an_s_and_are_dimmer_than_in_a_smile(name: str) -> None:
    picture = photo(name)
    rows, skin = between_lips(picture, S, 1.0)
    slit, _ = between_lips(picture, torch.tensor([0.15, 0.5, 0.0, 0.0, 0.0, 1.0]), 0.0)
    assert rows.median() > 1.8 * slit.median()
    assert rows.median() > 0.35 * skin
    open_mouth, _ = between_lips(picture, torch.tensor([0.6, 0.7, 0.0, 0.0, 0.0, 1.0]), 0.0)
    assert rows.max() < 1.1 * open_mouth.max()


@pytest.mark.parametrize("name", ["hopper", "london_034", "london_045", "london_140"])
def test_a_little_opening_of_a_vowel_stays_dark(name: str) -> None:
    rows, skin = between_lips(photo(name), torch.tensor([0.15, 0.5, 0.0, 0.0, 0.0, 1.0]), 0.0)
    assert rows.min() < 0.45 * skin
