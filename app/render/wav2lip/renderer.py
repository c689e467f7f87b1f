"""Renderer `wav2lip`: a neural mouth from a checkpoint that the operator brings, laid into a photo or a video."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from app.face.analyser import FaceAnalyser
from app.face.cache import TrackCache
from app.media.encode import VideoWriter, h264_encoder
from app.render.batching import Batch
from app.render.contract import Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.film.footage import Footage, open_footage
from app.render.film.tracking import FaceFinder, Track, face_at
from app.render.timing import room_for_encoder, timed
from app.render.wav2lip.checkpoint import CheckpointError, load_generator
from app.render.wav2lip.dubbing import Dubber
from app.render.wav2lip.network import Generator
from app.render.wav2lip.options import CHECKPOINT, Wav2LipOptions, why_absent
from app.render.wav2lip.placing import face_boxes
from app.render.wav2lip.voice import Voice, listen

OUTPUT_NAME = "output.mp4"
DEFAULT_CACHE_BYTES = 512 * 1024**2

_BATCH = {"cuda": 64, "cpu": 16}
"""Frames in flight: enough to keep the device busy, little enough to cancel within a fraction of a second."""
_BATCH_PIXELS = 24_000_000
"""And never more pixels than this (72 MB of frames), for large templates."""


class Wav2LipRenderer(Renderer):
    """Renders with torch on one device.

    Settings: `checkpoint` (required), `cache_dir` (none: no cache of template analyses), `cache_bytes`.
    """

    name: ClassVar[str] = "wav2lip"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings or {})
        self._device = torch.device("cpu")
        self._finder: FaceFinder | None = None
        self._generator: Generator | None = None

    def load(self, device: str) -> None:
        """Load the checkpoint and the face models onto `device`. Raises `CheckpointError`."""
        if reason := why_absent(self.settings):
            raise CheckpointError(f"The renderer `wav2lip` is not available: {reason}.")
        self._device = torch.device(device)
        self._generator = load_generator(self.settings[CHECKPOINT], self._device)
        folder = self.settings.get("cache_dir")
        limit = int(self.settings.get("cache_bytes", DEFAULT_CACHE_BYTES))
        self._finder = FaceFinder(FaceAnalyser(self._device), TrackCache(Path(folder), limit) if folder else None)

    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Render `job`. Raises CodedError (INPUT_NO_FACE, unreadable input, full disk ...) and `Cancelled`."""
        if self._finder is None or self._generator is None:
            raise RuntimeError("load() comes before render()")
        options = Wav2LipOptions.model_validate(dict(job.options))
        started = time.perf_counter()
        stages: dict[str, float] = {}
        with torch.inference_mode(), room_for_encoder(self._device):
            footage = open_footage(job.source, options.fps)
            try:
                with timed(stages, "analyse_speech"):
                    voice = listen(
                        job.audio, self._generator.profile, lambda columns: progress.report(Phase.ANALYSE, columns, 0)
                    )
                count = voice.frame_count(footage.rate)
                waited = footage.seconds
                with timed(stages, "analyse_face"):
                    track = self._finder.find(
                        footage,
                        job.source,
                        job.source_sha256,
                        count,
                        lambda n, m: progress.report(Phase.ANALYSE, n, m),
                        batch_scale=job.batch_scale,
                    )
                stages["analyse_face"] -= footage.seconds - waited
                usual = min(_BATCH[self._device.type], _BATCH_PIXELS // (footage.width * footage.height))
                batch = Batch(usual, job.batch_scale)
                faceless, covered = self._perform(job, options, footage, voice, track, count, batch, progress, stages)
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
                "face_at": face_at(track),
                "moves": ["lower_face"],
                "frames_without_face": faceless,
                "frames_covered": covered,
                "analysis_cached": track.cached,
                "frames_analysed": len(track.present),
                "batch": batch.size,
                "precision": str(self._generator.dtype).removeprefix("torch."),
            },
        )

    def _perform(
        self,
        job: RenderJob,
        options: Wav2LipOptions,
        footage: Footage,
        voice: Voice,
        track: Track,
        count: int,
        batch: Batch,
        progress: Progress,
        stages: dict[str, float],
    ) -> tuple[int, int]:
        """Render and write all frames; returns how many of them show no face, and how many something in front of its
        mouth: these went through untouched."""
        assert self._generator is not None
        with timed(stages, "render"):
            boxes = face_boxes(track.pixels, track.present, options.chin)
            still = footage.frame(0) if footage.still else None
            dubber = Dubber(self._generator, boxes, self._device, still)
        stages["encode_wait"] = 0.0
        faceless = covered = done = 0
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
                    mel = voice.windows(done, len(frames), footage.rate)
                    at = torch.from_numpy(numbers)
                    shown, hidden = track.present[at], track.covered[at]
                    which = (shown & ~hidden).nonzero()[:, 0]
                    faceless += int((~shown).sum())
                    covered += int(hidden.sum())
                    batch.over(len(which), partial(_dub, dubber, frames, which, at, mel))
                with timed(stages, "encode_wait"):
                    writer.write(frames.numpy())
                done += len(frames)
                progress.report(Phase.RENDER, done, count)
            progress.report(Phase.ENCODE, 0, count)
            with timed(stages, "encode_wait"):
                writer.close()
            progress.report(Phase.ENCODE, count, count)
        stages["encode"] = writer.encode_seconds
        return faceless, covered


def _dub(dubber: Dubber, frames: Tensor, which: Tensor, numbers: Tensor, mel: Tensor, part: slice) -> None:
    rows = which[part]
    dubber.dub_into(frames, rows, numbers[rows], mel[rows])
