"""One face saying one thing: what every frame shows is decided and drawn here."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from app.face.cache import file_sha256
from app.render.batching import Batch
from app.render.contract import RenderJob
from app.render.film.footage import Footage
from app.render.film.tracking import Track
from app.render.warp.animation import Animator
from app.render.warp.compositor import Compositor
from app.render.warp.gestures import Gestures
from app.render.warp.life import Life, live
from app.render.warp.options import WarpOptions
from app.render.warp.subject import best_teeth_frame, read_subject, teeth_plate
from app.render.warp.voice import Voice
from app.speech.channels import FloatArray

_FADE = 4
"""Frames in which the source's own mouth takes the new one's place before something covers it, and back after."""


_LEAST_STRENGTH = 0.6
"""With less the mouth is asked to hardly move, and nobody should wonder that it does not."""


class WarpPerformance:
    """A `Performance`: the face tracked as `track` over `footage` speaks with `voice`."""

    def __init__(
        self,
        job: RenderJob,
        options: WarpOptions,
        footage: Footage,
        voice: Voice,
        track: Track,
        device: torch.device,
    ) -> None:
        subject = read_subject(track.pixels, track.present)
        self._moves, self._gap = _moves(options, footage.still), subject.rest.gap
        self._lips_follow = options.strength >= _LEAST_STRENGTH
        self._voice, self._rate, self._present, self._device = voice, footage.rate, track.present, device
        self._amount = _free(track.covered)
        number = best_teeth_frame(subject, track.present)
        plate = teeth_plate(subject, footage.frame(number), number)
        here = subject.to(device)
        self._compositor = Compositor(here, plate, device, footage.frame(0) if footage.still else None)
        self._animator = Animator(here.rest, options.strength)
        self._life = self._lived(job, options) if footage.still else None
        self.faceless = self.covered = 0

    @property
    def facts(self) -> Mapping[str, Any]:
        """What moves, and how often the eyes shut in all of the video; a template's own blinks are not counted."""
        return {
            "blinks": 0 if self._life is None else self._life.blinks,
            "moves": self._moves,
            "lips_follow": self._lips_follow,
            "lips_parted_in_source": round(self._gap, 4),
        }

    @property
    def articulation(self) -> FloatArray:
        """The speech as it was heard."""
        return self._voice.curve

    def play(self, frames: Tensor, numbers: npt.NDArray[np.int64], first: int, batch: Batch) -> None:
        """As `Performance.play`."""
        wanted = torch.from_numpy(self._voice.articulation(first, len(frames), self._rate))
        hiss = torch.from_numpy(self._voice.hissing(first, len(frames), self._rate))
        gestures = None
        if self._life is not None:
            lived = self._life.at(first, len(frames), self._rate)
            gestures = Gestures(*(torch.from_numpy(curve) for curve in lived))
        at = torch.from_numpy(numbers)
        shown = self._present[at]
        free = self._amount[at] > 0
        self.faceless += int((~shown).sum())
        self.covered += int((shown & ~free).sum())
        which = (shown & free).nonzero()[:, 0]
        batch.over(len(which), partial(self._draw, frames, which, at, wanted, hiss, gestures))

    def _draw(
        self,
        frames: Tensor,
        which: Tensor,
        numbers: Tensor,
        wanted: Tensor,
        hiss: Tensor,
        gestures: Gestures | None,
        part: slice,
    ) -> None:
        """Draw the faces of `frames[which[part]]`, or raise and leave all frames as they were."""
        rows = which[part]
        face = self._animator.pose(wanted[rows].to(self._device), hiss[rows].to(self._device))
        face = replace(face, amount=self._amount[numbers[rows]].to(self._device))
        acts = None if gestures is None else gestures.at(rows, self._device)
        self._compositor.render_into(frames, rows, numbers[rows], face, acts)

    def _lived(self, job: RenderJob, options: WarpOptions) -> Life | None:
        """What a portrait does besides speaking; None for one that does nothing."""
        blinks = options.blinks_per_minute if self._compositor.can_blink else 0.0
        gaze = options.gaze if options.gaze and self._compositor.can_look_about else 0.0
        if not (blinks or options.head_motion or gaze):
            return None
        seed = options.seed
        if seed is None:
            digests = (job.source_sha256 or file_sha256(job.source)) + file_sha256(job.audio)
            seed = zlib.crc32(digests.encode())
        voice, motion = self._voice, options.head_motion
        return live(voice.curve, voice.loudness, seed, blinks_per_minute=blinks, motion=motion, gaze=gaze)


def _free(covered: Tensor) -> Tensor:
    """How much of the new mouth each frame [T] of the source shows, 0..1: none where it is covered, and on the way
    there and back a little more with every frame."""
    near = covered.float()[None, None]
    steps = [functional.max_pool1d(near, 2 * reach + 1, 1, reach)[0, 0] for reach in range(_FADE)]
    return 1 - torch.stack(steps).mean(0)


def _moves(options: WarpOptions, still: bool) -> list[str]:
    """What of the picture may change."""
    eyes = ["eyes"] if still and (options.blinks_per_minute > 0 or options.gaze > 0) else []
    head = ["head"] if still and options.head_motion > 0 else []
    return ["lower_face", *eyes, *head]
