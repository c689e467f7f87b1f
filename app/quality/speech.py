"""What the speech asks of the mouth, and in which frames of the video it is best looked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.speech.channels import CLOSURE, JAW, LABIODENTAL, ROWS_PER_SECOND, SPEECH, FloatArray

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_SPOKEN = 0.5
_AWAY_S = 0.08  # two frames at 25/s: the smallest shift that must show
_QUIET_SHARE = 0.2  # of the frames looked at are silent ones
_QUIET_S = 0.16  # a silent instant has no speech within this distance: a mouth takes its time to close


@dataclass(frozen=True)
class Demand:
    """At 100 Hz: `opening` [m] 0..1 how far the lips are meant to be apart, `spoken` [m] whether someone speaks."""

    opening: Values
    spoken: Flags

    @property
    def spoken_s(self) -> float:
        """Seconds of speech."""
        return float(self.spoken.sum()) / ROWS_PER_SECOND

    def at(self, seconds: Values, delay_s: float = 0.0) -> Values:
        """The opening meant `delay_s` before each of these instants, [n]; outside the speech 0."""
        rows = (seconds - delay_s) * ROWS_PER_SECOND
        if not len(self.opening):
            return np.zeros(len(seconds))
        found: Values = np.interp(rows, np.arange(len(self.opening)), self.opening, left=0.0, right=0.0)
        return found

    def is_spoken(self, seconds: Values) -> Flags:
        """Whether someone speaks at each of these instants, [n]."""
        return self._flag(self.spoken, seconds)

    def is_quiet(self, seconds: Values) -> Flags:
        """Whether nobody speaks at these instants, nor shortly before or after."""
        if not len(self.spoken):
            return np.ones(len(seconds), np.bool_)
        reach = round(_QUIET_S * ROWS_PER_SECOND)
        padded = np.pad(self.spoken, reach)
        near = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
        return ~self._flag(near, seconds)

    def _flag(self, flags: Flags, seconds: Values) -> Flags:
        if not len(flags):
            return np.zeros(len(seconds), np.bool_)
        rows = np.round(seconds * ROWS_PER_SECOND).astype(np.int64)
        found: Flags = flags[rows.clip(0, len(flags) - 1)] & (rows < len(flags))
        return found


def demand_of(curve: FloatArray, fps: float) -> Demand:
    """What articulation [m, 6] at 100 Hz asks for, in a video whose frames last `1 / fps`."""
    free = (1 - (curve[:, CLOSURE] / 0.7).clip(0, 1)) * (1 - curve[:, LABIODENTAL].clip(0, 1))
    opening = (curve[:, JAW] * free).astype(np.float64)
    width = max(1, round(ROWS_PER_SECOND / fps))
    if len(opening) >= width:
        opening = np.convolve(opening, np.ones(width) / width, mode="same")
    return Demand(opening, curve[:, SPEECH] > _SPOKEN)


def middles(numbers: npt.ArrayLike, fps: float) -> Values:
    """The instants in the middle of the frames `numbers` [n], in seconds."""
    return (np.asarray(numbers, np.float64) + 0.5) / np.float64(fps)


def telling_frames(demand: Demand, frames: int, fps: float, count: int) -> list[int]:
    """The numbers of at most `count` of `frames` frames in which right and wrong mouths are told apart best.

    The video is cut into equal parts. Of each is taken, in turn, where the mouth closes or opens fastest (there a shift
    shows most), where it is widest and where it is most shut; and some silent frames where there are any.
    """
    seconds = middles(np.arange(frames), fps)
    wanted = demand.at(seconds)
    quiet = np.flatnonzero(demand.is_quiet(seconds))
    silent = min(len(quiet), max(1, round(count * _QUIET_SHARE)))
    chosen = set(quiet[np.linspace(0, len(quiet) - 1, silent).round().astype(int)].tolist()) if silent else set()
    change = np.abs(demand.at(seconds, -_AWAY_S) - demand.at(seconds, _AWAY_S))
    merits = (change, wanted, change, -wanted)
    spoken = demand.is_spoken(seconds)
    for number, part in enumerate(np.array_split(np.arange(frames), max(1, min(count - len(chosen), frames)))):
        candidates = part[spoken[part]] if spoken[part].any() else part
        merit = merits[number % len(merits)]
        chosen.add(int(candidates[merit[candidates].argmax()]))
    return sorted(chosen)
