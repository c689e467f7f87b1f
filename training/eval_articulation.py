"""Prints how well the shipped network does on voices it never heard, on recordings, in noise, and how fast.

    python training/eval_articulation.py [--hama]

--hama also scores the phoneme recogniser `hama` (PyPI) on the same seals, shifted by its best constant lag.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from coarticulation import LETTERS
from corpus import Take, held_out_takes, recorded_takes
from scores import FloatArray, SealScore, score_seals
from voices import PAUSE

from app.speech.articulation import SpeechAnalyser
from app.speech.channels import CLOSURE, HOP, JAW, SPEECH
from evaluation import report, seal_report

RATE = 16_000
_NOISE_DB = 20.0
_LOUDNESS = 0.08
_HAMA_ROWS = 600
_PAUSE_ROWS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("/tmp/greenroom-corpus"), help="as in training")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hama", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    analyser = SpeechAnalyser(torch.device("cpu"))

    def analyse(audio: npt.NDArray[np.int16]) -> FloatArray:
        return np.concatenate(list(analyser.analyse([audio.astype(np.float32) / 32768])))

    synthetic, recorded = held_out_takes(chosen.corpus, chosen.seed), recorded_takes()
    print("Held-out synthetic voices\n" + report(synthetic, analyse))
    print("\nRecorded speech (LibriVox, timed by pocketsphinx)\n" + report(recorded, analyse))
    print(f"\nThe same in noise, {_NOISE_DB:.0f} dB below the speech")
    print(report([_noisy(take) for take in [*synthetic, *recorded]], analyse))
    print("\nWithout speech: greatest jaw, closure, speech")
    for name, sound in _speechless().items():
        peaks = analyse(sound).max(axis=0)
        print(f"{name:32} {peaks[JAW]:.3f}  {peaks[CLOSURE]:.3f}  {peaks[SPEECH]:.3f}")
    print(f"\nReal-time factor, one thread: {_real_time_factor(analyse):.4f}")
    if chosen.hama:
        print("\nhama, shifted by its best lag\n" + _hama_report([*synthetic, *recorded]))


def _noisy(take: Take) -> Take:
    rng = np.random.default_rng(len(take.audio))
    level = np.sqrt(np.mean((take.audio / 32768.0) ** 2)) * 10 ** (-_NOISE_DB / 20)
    noisy = take.audio + rng.normal(0.0, level * 32768, len(take.audio))
    return replace(take, audio=np.clip(noisy, -32768, 32767).astype(np.int16))


def _speechless() -> dict[str, npt.NDArray[np.int16]]:
    """Ten seconds each of sounds in which nobody speaks."""
    rng = np.random.default_rng(1)
    length = 10 * RATE
    white = rng.normal(0.0, 1.0, length)
    spectrum = np.fft.rfft(white)
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 50)), n=length)
    pink /= pink.std()
    times = np.arange(length) / RATE
    hum = sum(np.sin(2 * np.pi * 50 * harmonic * times) / harmonic for harmonic in (1, 2, 3, 5))
    sounds = {"digital silence": np.zeros(length)}
    for below in (20, 40):
        level = _LOUDNESS * 10 ** (-below / 20)
        sounds[f"white noise, {below} dB below speech"] = white * level
        sounds[f"pink noise, {below} dB below speech"] = pink * level
        sounds[f"mains hum, {below} dB below speech"] = hum * level
    return {name: np.round(sound * 32767).astype(np.int16) for name, sound in sounds.items()}


def _real_time_factor(analyse: object) -> float:
    assert callable(analyse)
    sound = np.random.default_rng(1).normal(0, 1000, 120 * RATE).astype(np.int16)
    analyse(sound[: 5 * RATE])
    began = time.perf_counter()
    analyse(sound)
    return (time.perf_counter() - began) / 120


def _hama_report(takes: list[Take]) -> str:
    """hama tells when a phoneme is emitted, not how long it lasts: a moment stands for the seal."""
    from hama.asr import ASRModel

    model = ASRModel()
    emitted = {
        take.name: [
            start + span.start_ms / 1000
            for start, sound in _utterances(take)
            for span in model.phoneme_spans(model.transcribe_waveform(sound, RATE))
            if span.phoneme[0] in "pbm"
        ]
        for take in takes
    }

    def scores(lag: float) -> dict[str, SealScore]:
        return {
            take.name: score_seals([(at - lag, at - lag) for at in emitted[take.name]], take.seals) for take in takes
        }

    best = max(np.arange(0.0, 0.15, 0.01), key=lambda lag: sum(score.found for score in scores(lag).values()))
    return f"lag {best * 1000:.0f} ms\n" + seal_report(scores(best))


def _utterances(take: Take) -> Iterator[tuple[float, FloatArray]]:
    """Stretches of some seconds, cut in pauses, with their starts: hama loses its way in longer ones."""
    rows, start = len(take.letters), 0
    while start < rows:
        end = min(start + _HAMA_ROWS, rows)
        while end < rows and take.letters[end] != LETTERS.index(PAUSE):
            end += 1
        end = min(end + _PAUSE_ROWS, rows)
        yield start * HOP / RATE, take.audio[start * HOP : end * HOP].astype(np.float32) / 32768
        start = end


if __name__ == "__main__":
    main()
