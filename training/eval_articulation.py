"""Measures the shipped network on voices it never heard, on recordings, in noise and without speech.

    python training/eval_articulation.py [--hama]

Writes benchmarks/results/speech.json and, from it, the section "Speech" of docs/quality.md (`speech_report.py`).
--hama also scores the phoneme recogniser `hama` (PyPI) on the recorded seals, shifted by its best constant lag.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corpus import HELD_OUT_BESIDE, HELD_OUT_LANGUAGES, Take, chosen_on_takes, held_out_takes, recorded_takes
from disturbances import NAMES, disturbance
from peers import hama_scores
from scores import (
    NO_SEALS,
    FloatArray,
    SealScore,
    best_lag_ms,
    correlation,
    predicted_seals,
    score_seals,
)
from speech_report import section
from visemes import visemes

from app.speech.articulation import SpeechAnalyser
from app.speech.channels import CHANNELS, CLOSURE, HOP, JAW, LABIODENTAL, PROTRUSION, REST, SPEECH, WIDTH
from app.speech.network import WEIGHTS
from evaluation.page import write_section

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "speech.json"

RATE = 16_000
_BELOW_DB = 20.0
_MUSIC_BELOW_DB = 10.0
"""How far below speech music is when the question is whether it keeps the mouth shut."""

_LOUDNESS = 0.08
_AT_REST = 0.1
"""How far a channel may be from its rest for lips that do not seem to move."""

_AWAY_ROWS = 20
"""A row counts as pause when no speech is this near: lips take that long to come and go."""

_PLACES = 3


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

    groups = {
        "recorded": recorded_takes(),
        "chosen_on": chosen_on_takes(),
        "synthetic": held_out_takes(chosen.corpus, chosen.seed),
    }
    figures: dict[str, Any] = {"weights_bytes": WEIGHTS.stat().st_size}
    for kind, takes in groups.items():
        figures[kind] = _measured(takes, analyse)
    for kind in ("recorded", "synthetic"):
        noisy = [_disturbed(take, "white noise") for take in groups[kind]]
        figures[f"{kind}_with_noise"] = _measured(noisy, analyse)
    beside_music = [_disturbed(take, "music", _MUSIC_BELOW_DB) for take in groups["recorded"]]
    figures["recorded_with_music"] = _measured(beside_music, analyse)
    figures["pauses"] = {
        name: _rest_in_pauses([_disturbed(take, name) for take in groups["recorded"]], analyse)
        for name in ("nothing", *NAMES)
    }
    figures["without_speech"] = {name: _unrest(analyse(sound)) for name, sound in _speechless().items()}
    figures["real_time_factor"] = round(_real_time_factor(analyse), 4)
    if chosen.hama:
        scores = hama_scores(groups["recorded"] + groups["chosen_on"])
        figures["hama"] = {name: _seal_figures(score, score) for name, score in scores.items()}
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    write_section("speech", section(figures))
    print(json.dumps(figures, indent=1))


def _measured(takes: list[Take], analyse: Any) -> dict[str, Any]:
    """Figures by voice, by language and over all of them."""
    voices: dict[str, Any] = {}
    tallies: dict[str, _Tally] = {}
    for take in takes:
        curve = analyse(take.audio)
        tally = _tally(take, curve)
        voices[take.name.removeprefix("held-out-")] = {
            **tally.figures(),
            "lag_ms": best_lag_ms(curve[:, JAW], take.curve[:, JAW]),
            "correlation": {
                CHANNELS[channel]: _rounded(correlation(curve[:, channel], take.curve[:, channel]))
                for channel in (JAW, WIDTH, PROTRUSION, LABIODENTAL)
            },
            "seconds": round(len(take.audio) / RATE),
        }
        for whole in ("all", _language(take.name)):
            tallies[whole] = tallies.get(whole, _NOTHING) + tally
    everything = tallies.pop("all")
    languages = {language: tally.figures() for language, tally in sorted(tallies.items())}
    return {"all": everything.figures(), "languages": languages, "voices": voices}


@dataclass(frozen=True)
class _Tally:
    """What is added up over takes: seals by either way of pairing, rows of speech and those of the right viseme."""

    within: SealScore
    middles: SealScore
    spoken: int
    right: int

    def __add__(self, other: "_Tally") -> "_Tally":
        return _Tally(
            self.within + other.within,
            self.middles + other.middles,
            self.spoken + other.spoken,
            self.right + other.right,
        )

    def figures(self) -> dict[str, Any]:
        accuracy = _rounded(self.right / max(self.spoken, 1))
        return {**_seal_figures(self.within, self.middles), "viseme_accuracy": accuracy}


_NOTHING = _Tally(NO_SEALS, NO_SEALS, 0, 0)


def _tally(take: Take, curve: FloatArray) -> _Tally:
    predicted = predicted_seals(curve)
    spoken = take.letters != 0
    right = visemes(curve)[spoken] == visemes(take.curve)[spoken]
    return _Tally(
        score_seals(predicted, take.seals),
        score_seals(predicted, take.seals, middles=True),
        int(spoken.sum()),
        int(right.sum()),
    )


def _language(name: str) -> str:
    """The language of a take by its name: English where the name ends with a voice or a number."""
    last = name.removeprefix("held-out-").split("-", 1)[1]
    return last if last in (*HELD_OUT_BESIDE, *HELD_OUT_LANGUAGES) and last != "en-us" else "en"


def _seal_figures(score: SealScore, strict: SealScore) -> dict[str, Any]:
    return {
        "seals": score.present,
        "found": _rounded(score.recall),
        "false": _rounded(score.false_share),
        "found_by_middle": _rounded(strict.recall),
        "false_by_middle": _rounded(strict.false_share),
        "seal_lag_ms": _rounded(score.lag_ms),
    }


def _disturbed(take: Take, name: str, below_db: float = _BELOW_DB) -> Take:
    """The take with a disturbance so far below its speech, or as it is."""
    if name == "nothing":
        return take
    sound = disturbance(name, len(take.audio))
    speech = take.audio[np.repeat(take.letters != 0, HOP)[: len(take.audio)]] / 32768.0
    level = np.sqrt(np.mean(speech**2)) * 10 ** (-below_db / 20)
    disturbed = take.audio + sound * level * 32768
    return replace(take, audio=np.clip(disturbed, -32768, 32767).astype(np.int16))


def _rest_in_pauses(takes: list[Take], analyse: Any) -> dict[str, Any]:
    """Share of the rows far from speech in which the mouth is at rest."""
    away = []
    for take in takes:
        speaking = np.convolve(take.letters != 0, np.ones(2 * _AWAY_ROWS + 1), mode="same") > 0
        away.append(_distance(analyse(take.audio))[~speaking])
    distance = np.concatenate(away)
    return {"rows": len(distance), "at_rest": _rounded(np.mean(distance < _AT_REST))}


def _speechless() -> dict[str, npt.NDArray[np.int16]]:
    """Half a minute each of sounds in which nobody speaks."""
    length = 30 * RATE
    sounds = {"digital silence": np.zeros(length)}
    for below in (20, 40):
        level = _LOUDNESS * 10 ** (-below / 20)
        sounds |= {f"{name}, {below} dB below speech": disturbance(name, length) * level for name in NAMES}
    return {name: np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16) for name, sound in sounds.items()}


def _unrest(curve: FloatArray) -> dict[str, float]:
    return {
        "at_rest": _rounded(np.mean(_distance(curve) < _AT_REST)),
        **{CHANNELS[channel]: _rounded(curve[:, channel].max()) for channel in (JAW, CLOSURE, SPEECH)},
    }


def _distance(curve: FloatArray) -> FloatArray:
    """How far the farthest channel of each row is from rest; whether someone speaks does not count."""
    away: FloatArray = np.abs(curve[:, :SPEECH] - REST[:SPEECH]).max(axis=1)
    return away


def _real_time_factor(analyse: Any) -> float:
    """Processor time, which a busy machine does not change as much as it does the clock's."""
    sound = np.random.default_rng(1).normal(0, 1000, 120 * RATE).astype(np.int16)
    analyse(sound[: 5 * RATE])
    began = time.process_time()
    analyse(sound)
    return (time.process_time() - began) / 120


def _rounded(value: Any) -> float:
    return round(float(value), _PLACES)


if __name__ == "__main__":
    main()
