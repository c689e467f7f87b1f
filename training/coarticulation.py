"""From timed phones to articulation curves: dominance functions after Cohen and Massaro (1993).

M. M. Cohen and D. W. Massaro, "Modeling coarticulation in synthetic visual speech", in Models and Techniques in
Computer Animation, 1993: each segment pulls each channel to its target with a dominance
D(t) = a * exp(-theta * |tau| ** c) that falls off from the segment on both sides, and the channel is the mean of
all targets weighted by their dominances. Here c = 1, and tau is 0 within the middle half of a segment, so that
a long vowel or a pause holds its shape.

Lips that must seal do so however strong the neighbours are: closure and labiodental are not blended but held at
their full value while the sound needs it, with ramps for coming and going.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from phones import PAUSE_SHAPE, SEALED, SHAPES, VOICED_STOPS, VOICELESS_STOPS, Shape, letters, lip_to_teeth
from voices import PAUSE, Spoken

ROWS_PER_SECOND = 100

_THETA = 26.0
"""Fall of dominance a second: to a third within 40 ms, half the length of a usual sound."""

_RAMP_S = 0.03
"""How long lips take from nearly touching to sealed, and back."""

_VOICELESS_CLOSED, _VOICED_CLOSED = 0.6, 0.8
"""Share of a stop's segment before its burst; measured on flite's and Festival's voices (energy above 2 kHz)."""

_BREATH_S = 0.15
"""A pause shorter than this does not bring the mouth to rest."""


@dataclass(frozen=True)
class _Segment:
    letter: str
    shape: Shape
    start: float
    end: float


def curves(spoken: Spoken) -> npt.NDArray[np.float32]:
    """Articulation of the speech, [rows, 6] with the columns of `app.speech.channels`; row k at k * 10 ms."""
    rows = -(-len(spoken.audio) // (16_000 // ROWS_PER_SECOND))
    segments = _segments(spoken)
    blended = _blend(segments, rows)
    closure = _held(sealed_spans(spoken), rows)
    labiodental = np.zeros(rows)
    for segment in segments:
        if (depth := lip_to_teeth(segment.letter)) > 0:
            labiodental = np.maximum(labiodental, depth * _held([(segment.start, segment.end)], rows))
    speech = _held([(s.start, s.end) for s in segments if s.shape is not PAUSE_SHAPE], rows)
    return np.column_stack([*blended, closure, labiodental, speech]).astype(np.float32)


LETTERS = ("", *sorted(SHAPES))
"""What `letter_rows` counts in; "" is a pause."""


def letter_rows(spoken: Spoken) -> npt.NDArray[np.uint8]:
    """Which sound is made at each row, as an index into LETTERS."""
    rows = np.zeros(-(-len(spoken.audio) // (16_000 // ROWS_PER_SECOND)), dtype=np.uint8)
    for segment in _segments(spoken):
        first, last = np.ceil(np.array([segment.start, segment.end]) * ROWS_PER_SECOND).astype(int)
        rows[first:last] = LETTERS.index(segment.letter)
    return rows


def sealed_spans(spoken: Spoken) -> list[tuple[float, float]]:
    """When the lips are sealed, in seconds: once for sounds in a row that share a seal, as in "lamp"."""
    spans: list[tuple[float, float]] = []
    for segment in _segments(spoken):
        if segment.letter not in SEALED:
            continue
        start, end = segment.start, segment.start + (segment.end - segment.start) * _closed_share(segment.letter)
        if spans and start - spans[-1][1] < _RAMP_S:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def _closed_share(letter: str) -> float:
    if letter in VOICELESS_STOPS:
        return _VOICELESS_CLOSED
    return _VOICED_CLOSED if letter in VOICED_STOPS else 1.0


def _segments(spoken: Spoken) -> list[_Segment]:
    """The phones taken apart into single sounds, each with an equal share of its phone's time."""
    segments: list[_Segment] = []
    for phone in spoken.phones:
        parts = letters(phone.symbol)
        step = (phone.end - phone.start) / max(len(parts), 1)
        for index, letter in enumerate(parts):
            start = phone.start + index * step
            segments.append(_Segment(letter, SHAPES[letter], start, start + step))
        if not parts and phone.symbol == PAUSE:
            segments.append(_Segment("", PAUSE_SHAPE, phone.start, phone.end))
    return [
        segment for segment in segments if segment.shape is not PAUSE_SHAPE or segment.end - segment.start > _BREATH_S
    ]


def _blend(segments: list[_Segment], rows: int) -> list[npt.NDArray[np.float64]]:
    """jaw, width and protrusion by dominance."""
    times = np.arange(rows) / ROWS_PER_SECOND
    total = np.full((3, rows), 1e-9)
    pulled = np.array([PAUSE_SHAPE.jaw, PAUSE_SHAPE.width, PAUSE_SHAPE.protrusion])[:, None] * total
    reach = 0.5  # seconds; dominance is 2e-6 there
    for segment in segments:
        first, last = np.searchsorted(times, [segment.start - reach, segment.end + reach])
        near = times[first:last]
        quarter = (segment.end - segment.start) / 4
        away = np.maximum(np.maximum(segment.start + quarter - near, near - segment.end + quarter), 0.0)
        falling = np.exp(-_THETA * away)
        shape = segment.shape
        for channel, (target, dominance) in enumerate(
            (
                (shape.jaw, shape.jaw_dominance),
                (shape.width, shape.lip_dominance),
                (shape.protrusion, shape.lip_dominance),
            )
        ):
            total[channel, first:last] += dominance * falling
            pulled[channel, first:last] += dominance * falling * target
    return list(pulled / total)


def _held(spans: list[tuple[float, float]], rows: int) -> npt.NDArray[np.float64]:
    """1 within the spans, 0 away from them, with raised-cosine ramps of _RAMP_S outside."""
    times = np.arange(rows) / ROWS_PER_SECOND
    curve = np.zeros(rows)
    for start, end in spans:
        first, last = np.searchsorted(times, [start - _RAMP_S, end + _RAMP_S])
        near = times[first:last]
        away = np.clip(np.maximum(start - near, near - end) / _RAMP_S, 0.0, 1.0)
        curve[first:last] = np.maximum(curve[first:last], 0.5 + 0.5 * np.cos(np.pi * away))
    return curve
