"""How long an attempt takes, learned per kind of work from attempts that succeeded.

The time of a render is about a line over the seconds of speech: what it costs to begin, and seconds per second. The
lines are kept for ever finer kinds of work: a tier; with pictures of that size; with those options; with that template
analysed or not. A finer kind begins as its coarser one and departs from it as far as its own tasks say. Within a kind
the line is the median of the slopes of all pairs (Theil 1950, Sen 1968), moved by the median of its latest errors, so
that single outliers change nothing and a machine that became slower is noticed after a few tasks.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from app.forecast.spread import LEAST_SIGMA, Spread

_REMEMBERED = 32
"""Attempts per kind: about 500 pairs, and a change of the machine is learned within as many."""
_FADE = 0.93
"""The weight of an attempt against the next younger one: half after ten."""
_LINE_LEAST, _LINE_REACH = 6, 1.5
"""A line of its own takes so many attempts, of which the longest speech is so many times the shortest."""
_UNSURE = 0.4
"""The spread before anything is known: a third off is normal."""
_APART = 0.1
"""Kinds of work differ by a tenth at least, and so do tasks of one kind: nothing is sure after one attempt."""
_KINDS_MOST = 2000
"""Kinds that are remembered; the longest unused one is forgotten."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is known of a task's work on one tier before it is done."""

    tier: str
    seconds: float
    """Of speech."""
    shape: str = ""
    """The kind of source and its size in powers of two."""
    style: str = ""
    """Which options."""
    warm: bool | None = None
    """Whether the source was analysed before; None where that does not matter."""

    @property
    def kinds(self) -> tuple[tuple[object, ...], ...]:
        """The kinds that it is of, the coarsest first."""
        full = (self.tier, self.shape, self.style, self.warm)
        return tuple(full[:depth] for depth in range(1, len(full) + 1))


def work_of(
    tier: str,
    *,
    source: Mapping[str, Any],
    audio: Mapping[str, Any],
    options: Mapping[str, Any],
    seen: bool,
) -> Work:
    """The work of a task. `source` and `audio` are what the probe found (`app.media.info.MediaInfo` as dicts);
    `seen`: whether this source was rendered before."""
    kind = str(source.get("kind", ""))
    pixels = (source.get("width") or 0) * (source.get("height") or 0)
    style = ""
    if options:
        style = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]
    return Work(
        tier=tier,
        seconds=float(audio.get("audio_duration_s") or audio.get("duration_s") or 0.0),
        shape=f"{kind}/{round(math.log2(pixels)) if pixels else 0}",
        style=style,
        warm=seen if kind == "video" else None,
    )


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of an attempt."""

    took: Spread
    """From its claim to its committed end."""
    after_frames: float
    """The share of that time which comes after the last frame: checks, judgement, publication."""


@dataclass(frozen=True, slots=True)
class _Fit:
    """`begin` + `slope` x seconds of speech, off by a factor whose logarithm spreads by `sigma`."""

    begin: float
    slope: float
    sigma: float
    after_frames: float

    def at(self, seconds: float) -> float:
        return max(self.begin + self.slope * seconds, 1e-3)


@dataclass(eq=False)
class _Kind:
    samples: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Seconds of speech, seconds that it took; the youngest last."""
    tails: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    fit: _Fit | None = None
    """None: to be fitted anew."""


class Durations:
    """What is learned. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: OrderedDict[tuple[object, ...], _Kind] = OrderedDict()

    def learn(self, work: Work, took: float, after_frames_s: float | None = None) -> None:
        """An attempt succeeded after `took` seconds, `after_frames_s` of them after its last frame."""
        took = max(took, 1e-3)
        with self._lock:
            for name in work.kinds:
                kind = self._kinds.setdefault(name, _Kind())
                self._kinds.move_to_end(name)
                kind.samples.append((work.seconds, took))
                if after_frames_s is not None:
                    kind.tails.append(min(max(after_frames_s / took, 0.0), 0.95))
                kind.fit = None
            while len(self._kinds) > _KINDS_MOST:
                self._kinds.popitem(last=False)

    def expect(self, work: Work) -> Expected | None:
        """What is expected of such an attempt; None where none of its tier ever succeeded."""
        with self._lock:
            found = self._fit(work)
        if found is None:
            return None
        return Expected(Spread(found.at(work.seconds), found.sigma), found.after_frames)

    def _fit(self, work: Work) -> _Fit | None:
        found: _Fit | None = None
        coarser = 0
        for name in work.kinds:
            kind = self._kinds.get(name)
            if kind is None:
                break
            if kind.fit is None:
                same = found is not None and coarser == len(kind.samples) < _REMEMBERED
                kind.fit = found if same else _fitted(kind, found)
            found, coarser = kind.fit, len(kind.samples)
        return found


def _fitted(kind: _Kind, coarser: _Fit | None) -> _Fit:
    samples = kind.samples
    weights = [_FADE**age for age in range(len(samples) - 1, -1, -1)]
    # Without anything to go by, a second of speech more costs what the first one did.
    begin, slope = _line(samples, weights) or ((coarser.begin, coarser.slope) if coarser else (1.0, 1.0))
    errors = [math.log(took / max(begin + slope * seconds, 1e-3)) for seconds, took in samples]
    off = median(errors, weights)
    # 1.48 median deviations are a standard deviation of a normal distribution; one attempt has no deviation at all.
    scale = 1.4826 * median([abs(error - off) for error in errors], [1.0] * len(errors))
    doubt = coarser.sigma if coarser is not None else _UNSURE
    if coarser is not None:
        # The share of its own word: its attempts against how far kinds are apart, as far as the coarser one tells.
        own = sum(weights) * max(doubt, _APART) ** 2
        off *= own / (own + max(scale, _APART) ** 2)
    sigma = math.sqrt(((len(errors) - 1) * scale**2 + doubt**2) / len(errors))
    tail = median(kind.tails, [_FADE**age for age in range(len(kind.tails) - 1, -1, -1)]) if kind.tails else 0.0
    factor = math.exp(off)
    return _Fit(begin * factor, slope * factor, max(sigma, LEAST_SIGMA), tail)


def _line(samples: Sequence[tuple[float, float]], weights: Sequence[float]) -> tuple[float, float] | None:
    """Beginning and slope, neither negative; None where the samples are too few or too much alike."""
    lengths = [seconds for seconds, _ in samples]
    if len(samples) < _LINE_LEAST or max(lengths) < _LINE_REACH * max(min(lengths), 0.1):
        return None
    slopes, trust = [], []
    for (one, weight), (other, other_weight) in combinations(zip(samples, weights, strict=True), 2):
        run = other[0] - one[0]
        if run:
            slopes.append((other[1] - one[1]) / run)
            trust.append(weight * other_weight * abs(run))
    slope = max(median(slopes, trust), 0.0)
    begin = median([took - slope * seconds for seconds, took in samples], weights)
    if begin < 0.0:
        begin, slope = 0.0, median([took / max(seconds, 0.1) for seconds, took in samples], weights)
    return begin, slope


def median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted median of one value or more."""
    half = sum(weights) / 2.0
    reached = 0.0
    ordered = sorted(zip(values, weights, strict=True))
    for value, weight in ordered:
        reached += weight
        if reached >= half:
            return value
    return ordered[-1][0]
