import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.speech.articulation import CHANNELS, SpeechAnalyser
from app.speech.channels import CLOSURE, HOP, JAW, LABIODENTAL, REST, ROWS_PER_SECOND, SPEECH, WIDTH, row_count
from app.speech.network import WEIGHTS, ArticulationNetwork
from app.speech.sampling import sample_at

from .conftest import Recording

RATE = 16_000
SPEECH_LEVEL = 0.08
AT_REST = 0.1
"""What counts as no movement: a tenth of the opening of a clear vowel."""

NOT_SPEAKING = 0.25

SEALED = 0.7
"""From here on the renderer's lips touch."""


def curve_of(analyser: SpeechAnalyser, *blocks: np.ndarray) -> np.ndarray:
    pieces = list(analyser.analyse(blocks))
    return np.concatenate(pieces) if pieces else np.zeros((0, len(CHANNELS)), np.float32)


def noise(seconds: float, level: float) -> np.ndarray:
    return np.random.default_rng(3).normal(0.0, level, int(seconds * RATE)).astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_curve_does_not_depend_on_how_the_audio_is_cut(
    analyser: SpeechAnalyser, recording: Recording, data: st.DataObject
) -> None:
    length = data.draw(st.integers(1, 2 * len(recording.samples)))
    sound = np.resize(recording.samples, length)
    edges = sorted({0, length, *data.draw(st.lists(st.integers(0, length), max_size=20))})
    blocks = [sound[start:end] for start, end in pairwise(edges)]
    np.testing.assert_allclose(curve_of(analyser, *blocks), curve_of(analyser, sound), atol=1e-5)


@pytest.mark.parametrize("samples", [0, 1, HOP, HOP + 1, 4 * RATE, 4 * RATE + 1, 70_001])
def test_there_is_one_row_for_each_10_ms_begun(analyser: SpeechAnalyser, samples: int) -> None:
    curve = curve_of(analyser, noise(5, 0.1)[:samples])
    assert curve.shape == (row_count(samples), len(CHANNELS))
    assert curve.dtype == np.float32
    assert np.all((curve >= 0) & (curve <= 1))


def test_rows_come_before_the_audio_ends(analyser: SpeechAnalyser) -> None:
    def heard():
        for _ in range(20):
            yield np.zeros(RATE, np.float32)
        raise AssertionError("the analyser waited for the end")

    assert len(next(analyser.analyse(heard()))) > 0


def hum(hertz: float, seconds: float) -> np.ndarray:
    times = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * hertz * harmonic * times) / harmonic for harmonic in (1, 2, 3, 5))
    return (buzz / np.std(buzz)).astype(np.float32)


def breath(seconds: float) -> np.ndarray:
    """In and out, each for a second or so, as soft noise."""
    times = np.arange(int(seconds * RATE)) / RATE
    noise_in_mouth = np.convolve(noise(seconds, 1.0), np.hanning(9) / 4, mode="same")
    breathing = np.clip(np.sin(2 * np.pi * times / 2.2), 0, None) ** 2 * noise_in_mouth
    return (breathing / np.std(breathing)).astype(np.float32)


def chords(seconds: float) -> np.ndarray:
    """A plain bed of music: four chords, each note with its overtones dying away."""
    times = np.arange(int(seconds * RATE)) / RATE
    since = times % 1.5
    roots = 110.0 * 2 ** (np.array([0, 5, 7, 3])[(times // 1.5).astype(int) % 4] / 12)
    notes = [np.sin(2 * np.pi * roots * ratio * k * since) / k for ratio in (1, 1.26, 1.5) for k in range(1, 7)]
    bed = np.sum(notes, axis=0) * np.exp(-since)
    return (bed / np.std(bed)).astype(np.float32)


SOUNDS = {
    "silence": np.zeros(6 * RATE, np.float32),
    "white noise": noise(6, 1.0),
    "50 Hz hum": hum(50, 6),
    "60 Hz hum": hum(60, 6),
    "breathing": breath(6),
    "music": chords(6),
}


@pytest.mark.parametrize("below_db", [20, 40])
@pytest.mark.parametrize("name", SOUNDS)
def test_without_speech_the_mouth_is_at_rest(analyser: SpeechAnalyser, name: str, below_db: int) -> None:
    curve = curve_of(analyser, SOUNDS[name] * SPEECH_LEVEL * 10 ** (-below_db / 20))
    assert curve[:, JAW].max() < AT_REST
    assert curve[:, CLOSURE].max() < AT_REST
    assert curve[:, SPEECH].max() < NOT_SPEAKING
    assert np.abs(curve[:, WIDTH] - REST[WIDTH]).max() < AT_REST


@pytest.mark.parametrize("name", SOUNDS)
def test_pauses_around_speech_are_at_rest_whatever_is_heard_20_db_below_it(
    analyser: SpeechAnalyser, recording: Recording, name: str
) -> None:
    quiet = np.zeros(RATE, np.float32)
    sound = np.concatenate([quiet, recording.samples, quiet])
    level = float(np.sqrt(np.mean(recording.samples**2))) * 10 ** (-20 / 20)
    curve = curve_of(analyser, sound + np.resize(SOUNDS[name], len(sound)) * level)
    for pause in (curve[:80], curve[-80:]):
        assert pause[:, JAW].max() < AT_REST
        assert pause[:, CLOSURE].max() < AT_REST
    assert curve[150:-150, SPEECH].mean() > 0.8


def test_samples_that_are_not_numbers_count_as_silence(analyser: SpeechAnalyser, recording: Recording) -> None:
    spoilt, silenced = recording.samples.copy(), recording.samples.copy()
    spoilt[RATE : RATE + 400] = np.tile([np.nan, np.inf], 200)
    silenced[RATE : RATE + 400] = 0.0
    np.testing.assert_array_equal(curve_of(analyser, spoilt), curve_of(analyser, silenced))


@pytest.mark.parametrize("name", SOUNDS)
def test_lips_meet_where_a_reader_says_p_b_or_m(analyser: SpeechAnalyser, recording: Recording, name: str) -> None:
    level = float(np.sqrt(np.mean(recording.samples**2))) * 10 ** (-20 / 20)
    curve = curve_of(analyser, recording.samples + np.resize(SOUNDS[name], len(recording.samples)) * level)
    within = 4  # rows: one frame of 25 a second
    found = [
        curve[int(start * ROWS_PER_SECOND) - within : int(end * ROWS_PER_SECOND) + within, CLOSURE].max() > SEALED
        for start, end in recording.sealed
    ]
    assert sum(found) >= len(found) - 1

    near = np.zeros(len(curve), dtype=bool)
    for start, end in recording.sealed:
        near[int(start * ROWS_PER_SECOND) - within : int(end * ROWS_PER_SECOND) + within + 1] = True
    assert np.mean(curve[~near, CLOSURE] > SEALED) < 0.02


@pytest.mark.parametrize(("at_teeth", "sealed"), [(-5.0, True), (5.0, False)])
def test_a_closure_that_runs_into_a_lip_at_the_teeth_is_none(at_teeth: float, sealed: bool) -> None:
    network = ArticulationNetwork().eval()
    with torch.no_grad():
        network.last.weight.zero_()
        rows = network.last.bias.view(-1, len(CHANNELS))
        rows[:] = 5.0
        rows[:, CLOSURE] = 2.0
        rows[:, LABIODENTAL] = at_teeth
        curve = network(torch.zeros(1, network.before + 39 * HOP + network.after))
    assert curve.shape == (1, 40, len(CHANNELS))
    assert bool((curve[..., CLOSURE] > SEALED).all()) is sealed
    assert bool((curve[..., CLOSURE] < AT_REST).all()) is not sealed


def test_closures_survive_sampling_at_25_frames_a_second(analyser: SpeechAnalyser, recording: Recording) -> None:
    curve = curve_of(analyser, recording.samples)
    frames = sample_at(curve, np.arange(int(len(curve) / 4)) / 25)
    peaks = [curve[int(s * 100) - 3 : int(e * 100) + 4, CLOSURE].max() for s, e in recording.sealed]
    shown = [frames[int(s * 25) - 1 : int(e * 25) + 3, CLOSURE].max() for s, e in recording.sealed]
    np.testing.assert_allclose(shown, peaks, atol=0.05)


def test_the_jaw_opens_for_vowels_and_speech_is_seen(analyser: SpeechAnalyser, recording: Recording) -> None:
    curve = curve_of(analyser, recording.samples)
    assert curve[52:58, JAW].max() > 0.4  # "might"
    assert curve[30:300, SPEECH].mean() > 0.9


def test_weights_fit_the_package() -> None:
    assert WEIGHTS.stat().st_size <= 5_000_000


def test_importing_the_package_does_not_import_torch() -> None:
    script = "import sys, app.speech, app.speech.channels, app.speech.sampling; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
