"""The built-in renderer: makes a photo or a template video speak by warping its own lower face."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.face.cache import TrackCache, file_sha256
from app.media.encode import VideoWriter, h264_encoder
from app.render.batching import Batch
from app.render.contract import Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.timing import room_for_encoder, timed
from app.render.warp.animation import Animator
from app.render.warp.compositor import Compositor, Gestures
from app.render.warp.footage import Footage, open_footage
from app.render.warp.life import Life, live
from app.render.warp.options import WarpOptions
from app.render.warp.subject import Subject, best_teeth_frame, read_subject, teeth_plate
from app.render.warp.tracking import FaceFinder, Track
from app.render.warp.voice import SpeechModel, Voice, listen
from app.speech.articulation import SpeechAnalyser

OUTPUT_NAME = "output.mp4"
DEFAULT_CACHE_BYTES = 512 * 1024**2

_BATCH = 16  # frames in flight: enough to keep kernels busy, little enough to cancel within a fraction of a second
_BATCH_PIXELS = 24_000_000  # and never more pixels than this (72 MB of frames), for large templates


class WarpRenderer(Renderer):
    """Renders with torch on one device. Settings: `cache_dir` (none: no cache of template analyses), `cache_bytes`."""

    name: ClassVar[str] = "warp"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings or {})
        self._device = torch.device("cpu")
        self.finder: FaceFinder | None = None
        self.speech: SpeechModel | None = None

    def load(self, device: str) -> None:
        """Load face and speech models onto `device`."""
        self._device = torch.device(device)
        folder = self.settings.get("cache_dir")
        limit = int(self.settings.get("cache_bytes", DEFAULT_CACHE_BYTES))
        cache = TrackCache(Path(folder), limit) if folder else None
        self.finder = FaceFinder(FaceAnalyser(self._device), cache)
        self.speech = SpeechAnalyser(self._device)

    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Render `job`. Raises CodedError (INPUT_NO_FACE, unreadable input, full disk ...) and `Cancelled`."""
        if self.finder is None or self.speech is None:
            raise RuntimeError("load() comes before render()")
        options = WarpOptions.model_validate(dict(job.options))
        started = time.perf_counter()
        stages: dict[str, float] = {}
        with torch.inference_mode(), room_for_encoder(self._device):
            footage = open_footage(job.source, options.fps)
            try:
                with timed(stages, "analyse_speech"):
                    voice = listen(job.audio, self.speech, lambda rows: progress.report(Phase.ANALYSE, rows, 0))
                count = voice.frame_count(footage.rate)
                waited = footage.seconds
                with timed(stages, "analyse_face"):
                    track = self.finder.find(
                        footage,
                        job.source,
                        job.source_sha256,
                        count,
                        lambda n, m: progress.report(Phase.ANALYSE, n, m),
                        batch_scale=job.batch_scale,
                    )
                    subject = read_subject(track.pixels, track.present)
                stages["analyse_face"] -= footage.seconds - waited
                usual = min(_BATCH, _BATCH_PIXELS // (footage.width * footage.height))
                batch = Batch(usual, job.batch_scale)
                seen = self._perform(job, options, footage, voice, track, subject, count, batch, progress, stages)
            finally:
                footage.close()
        stages["decode"] = footage.seconds
        return RenderResult(
            path=job.output_dir / OUTPUT_NAME,
            frames=count,
            fps=float(footage.rate),
            duration_s=float(count / footage.rate),
            width=footage.width,
            height=footage.height,
            seconds=time.perf_counter() - started,
            stages=stages,
            facts={
                **seen,
                "analysis_cached": track.cached,
                "frames_analysed": len(track.present),
                "lips_parted_in_source": round(subject.rest.gap, 4),
                "batch": batch.size,
            },
        )

    def _perform(
        self,
        job: RenderJob,
        options: WarpOptions,
        footage: Footage,
        voice: Voice,
        track: Track,
        subject: Subject,
        count: int,
        batch: Batch,
        progress: Progress,
        stages: dict[str, float],
    ) -> dict[str, int]:
        """Render and write all frames; returns what was counted on the way."""
        with timed(stages, "render"):
            number = best_teeth_frame(subject, track.present)
            plate = teeth_plate(subject, footage.frame(number), number)
            here = subject.to(self._device)
            still = footage.frame(0) if footage.still else None
            compositor = Compositor(here, plate, self._device, still)
            animator = Animator(here.rest, options.strength)
            life = _life(job, options, voice, compositor) if footage.still else None
        stages["encode_wait"] = 0.0
        faceless = done = 0
        writer = VideoWriter(
            job.output_dir / OUTPUT_NAME,
            footage.width,
            footage.height,
            footage.rate,
            job.audio,
            crf=options.crf,
            encoder=h264_encoder(str(self._device)),
        )
        with writer:
            for frames, numbers in footage.batches(batch.size, count):
                with timed(stages, "render"):
                    wanted = torch.from_numpy(voice.articulation(done, len(frames), footage.rate))
                    at = torch.from_numpy(numbers)
                    shown = track.present[at]
                    faceless += int((~shown).sum())
                    which = shown.nonzero()[:, 0]
                    gestures = None if life is None else _gestures(life, done, footage, len(frames))
                    draw = partial(self._draw, compositor, animator, frames, which, at, wanted, gestures)
                    batch.over(len(which), draw)
                with timed(stages, "encode_wait"):
                    writer.write(frames.numpy())
                done += len(frames)
                progress.report(Phase.RENDER, done, count)
            progress.report(Phase.ENCODE, 0, count)
            with timed(stages, "encode_wait"):
                writer.close()
            progress.report(Phase.ENCODE, count, count)
        stages["encode"] = writer.encode_seconds
        return {"frames_without_face": faceless, "blinks": 0 if life is None else life.blinks}

    def _draw(
        self,
        compositor: Compositor,
        animator: Animator,
        frames: Tensor,
        which: Tensor,
        numbers: Tensor,
        wanted: Tensor,
        gestures: Gestures | None,
        part: slice,
    ) -> None:
        """Draw the faces of `frames[which[part]]`, or raise and leave all frames as they were."""
        rows = which[part]
        face = animator.pose(wanted[rows].to(self._device))
        acts = None if gestures is None else gestures.at(rows, self._device)
        compositor.render_into(frames, rows, numbers[rows], face, acts)


def _life(job: RenderJob, options: WarpOptions, voice: Voice, compositor: Compositor) -> Life | None:
    """What a portrait does besides speaking; None for one that does nothing."""
    blinks = options.blinks_per_minute if compositor.can_blink else 0.0
    if not (blinks or options.head_motion):
        return None
    seed = options.seed
    if seed is None:
        digests = (job.source_sha256 or file_sha256(job.source)) + file_sha256(job.audio)
        seed = zlib.crc32(digests.encode())
    return live(voice.curve, voice.loudness, seed, blinks_per_minute=blinks, motion=options.head_motion)


def _gestures(life: Life, first: int, footage: Footage, count: int) -> Gestures:
    lids, moves = life.at(first, count, footage.rate)
    return Gestures(torch.from_numpy(lids), torch.from_numpy(moves))
