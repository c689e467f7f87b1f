"""The gate: every finished video is watched once, before anybody is told of it.

It runs in the slot's process, or for slots that only wait for others in a judge's (`app.worker.judge_child`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.media.audio_in import audio_blocks
from app.media.watch import watch
from app.quality import scoring
from app.quality.picture import PictureWatch, longest_run, surroundings_psnr
from app.quality.sound import Loudness, compare, loudness
from app.quality.speech import Demand, demand_of, middles, telling_frames
from app.render.contract import RenderJob, RenderResult
from app.retry.taxonomy import CodedError, FailureCode

Block = npt.NDArray[np.float32]

_ONE_IN = 8
_FEWEST, _MOST = 24, 120
"""Frames whose lips are read: an eighth of the video within these bounds, which is half of what judging costs."""
_REPORT_EVERY = 100


@dataclass(frozen=True)
class Judgement:
    """`confidence` 0..1, the `values` that were measured and the `scores` that they got, by name, JSON-ready."""

    confidence: float
    values: dict[str, Any]
    scores: dict[str, float]

    @property
    def weakest(self) -> str:
        """The check that decided; empty where nothing could be judged."""
        return min(self.scores, key=lambda name: self.scores[name], default="")


class Gate:
    """Judges videos on one device; models are loaded when the first one with lips comes."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._models: Any = None

    def load(self) -> None:
        """Load the models now and use them once, so that the first video need not wait."""
        self._loaded().warm_up()

    def judge(
        self, job: RenderJob, result: RenderResult, *, lip_sync: bool, alive: Callable[[], None] = lambda: None
    ) -> Judgement:
        """Watch the video of `result` and compare it with its inputs.

        `lip_sync`: whether its renderer promises lips that follow the speech. `alive` is called along the way and may
        raise to stop. Facts of the result that are heeded: `moves` (what changes beside the lower face: `eyes`, `head`;
        without it the surroundings are not judged), `lips_follow` (false: not this time), `face_region` (see
        `app.face.roi`) or `face_at` (x, y), in the first frame, `frames_without_face`.

        Raises CodedError OUTPUT_INVALID where a frame cannot be decoded or the video has another number of them.
        """
        lips = lip_sync and bool(result.facts.get("lips_follow", True))
        sent = loudness(_telling(audio_blocks(job.audio), alive))
        demand = demand_of(self._articulation(job, result, alive), result.fps) if lips else None
        asked: list[int] = []
        if demand is not None:
            count = min(max(result.frames // _ONE_IN, _FEWEST), _MOST)
            asked = telling_frames(demand, result.frames, result.fps, count)
        picture, reading = self._watch(result, asked, alive)
        values: dict[str, Any] = {"black_share": round(picture.black / picture.frames, 4)}
        scores = {"not_black": scoring.ramp(picture.black / picture.frames, scoring.BLACK)}
        _judge_sound(sent, loudness(_telling(audio_blocks(result.path), alive)), values, scores)
        if demand is not None:
            _judge_freeze(demand, picture, result, values, scores)
            _judge_lips(demand, asked, reading, result, values, scores)
            _judge_surroundings(picture, job, result, reading, values, scores)
        rounded = {name: round(score, 3) for name, score in scores.items()}
        return Judgement(round(scoring.confidence(scores), 3), values, rounded)

    def _articulation(self, job: RenderJob, result: RenderResult, alive: Callable[[], None]) -> Any:
        if result.articulation is not None:
            return result.articulation
        with self._loaded().one_thread():
            pieces = list(self._loaded().speech.analyse(_telling(audio_blocks(job.audio), alive)))
        return np.concatenate(pieces) if pieces else np.zeros((0, 6), np.float32)

    def _watch(self, result: RenderResult, asked: list[int], alive: Callable[[], None]) -> tuple[PictureWatch, Any]:
        if not asked:
            return self._watch_all(result, asked, None, alive), None
        models = self._loaded()
        facts = result.facts
        reader = models.reader(region=facts.get("face_region"), near=facts.get("face_at"))
        with models.one_thread():
            return self._watch_all(result, asked, reader, alive), reader.reading()

    def _watch_all(
        self, result: RenderResult, asked: list[int], reader: Any, alive: Callable[[], None]
    ) -> PictureWatch:
        """Look at every frame, and have the `reader` look at those that are asked for."""
        picture = PictureWatch()
        try:
            for seen in watch(result.path, asked):
                picture.look(seen)
                if seen.colour is not None:
                    reader.look(seen.colour)
                if seen.number % _REPORT_EVERY == 0:
                    alive()
        except CodedError as error:
            raise _broken("a decodable file", error.failure.message) from error
        if picture.frames != result.frames:
            raise _broken(f"{result.frames} frames", f"{picture.frames}")
        return picture

    def _loaded(self) -> Any:
        if self._models is None:
            # Not before it is needed: a renderer without lips does without torch.
            from app.quality.models import Models

            self._models = Models(self._device)
        return self._models


def _telling(blocks: Iterable[Block], alive: Callable[[], None]) -> Iterator[Block]:
    """The same blocks, with a sign of life now and then."""
    for number, block in enumerate(blocks):
        if number % _REPORT_EVERY == 0:
            alive()
        yield block


def _broken(expected: str, found: str) -> CodedError:
    message = f"The rendered file is broken (decodes): expected {expected}, found {found}."
    return CodedError(FailureCode.OUTPUT_INVALID, message, check="decodes", expected=expected, found=found)


def _judge_sound(sent: Loudness, made: Loudness, values: dict[str, Any], scores: dict[str, float]) -> None:
    found = compare(sent, made)
    if found is None:
        return
    agreement, delay_s = found
    values |= {"sound_agreement": round(agreement, 3), "sound_delay_ms": round(delay_s * 1000)}
    scores["sound"] = scoring.ramp(agreement, scoring.SOUND)
    if agreement > scoring.SOUND[0]:
        scores["sound_in_time"] = scoring.ramp(abs(delay_s), scoring.SOUND_DELAY_S)


def _judge_freeze(
    demand: Demand, picture: PictureWatch, result: RenderResult, values: dict[str, Any], scores: dict[str, float]
) -> None:
    seconds = middles(np.arange(picture.frames), result.fps)
    frozen = np.array(picture.still) & demand.is_spoken(seconds)
    longest = longest_run(frozen) / result.fps
    values["longest_freeze_s"] = round(longest, 3)
    scores["not_frozen"] = scoring.ramp(longest, scoring.FREEZE_S)


def _judge_lips(
    demand: Demand,
    asked: list[int],
    reading: Any,
    result: RenderResult,
    values: dict[str, Any],
    scores: dict[str, float],
) -> None:
    faceless = float(result.facts.get("frames_without_face", 0)) / result.frames
    share = float(reading.present.mean()) if len(reading.present) else 0.0
    values["face_share"] = round(share, 3)
    scores["face"] = scoring.ramp(share / max(1 - faceless, 0.05), scoring.FACE)
    seconds = middles(np.array(asked)[reading.present], result.fps)
    sync = scoring.lip_sync(demand, seconds, reading.openings[reading.present])
    if sync is None:
        return
    values |= {
        "lip_agreement": round(sync.agreement, 3),
        "lip_lag_ms": round(sync.lag_s * 1000),
        "lip_lag_gain": round(sync.gain, 3),
        "mouth_travel": round(sync.travel, 4),
    }
    if sync.unrest is not None:
        values["mouth_open_in_silence"] = round(sync.unrest, 3)
    scores |= sync.scores()


def _judge_surroundings(
    picture: PictureWatch,
    job: RenderJob,
    result: RenderResult,
    reading: Any,
    values: dict[str, Any],
    scores: dict[str, float],
) -> None:
    moves = result.facts.get("moves")
    if moves is None or reading.mesh is None:
        return
    decibels = surroundings_psnr(picture, job, result, reading.mesh, frozenset(moves))
    if decibels is not None:
        values["surroundings_db"] = round(decibels, 1)
        scores["surroundings"] = scoring.ramp(decibels, scoring.SURROUNDINGS_DB)
