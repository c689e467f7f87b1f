"""The frame of a renderer that draws: a job's files, the face and the voice in them, then batch by batch to a file."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from app.face.analyser import FaceAnalyser
from app.face.cache import TrackCache
from app.media.encode import VideoWriter, h264_encoder
from app.render.batching import Batch
from app.render.contract import Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.film.footage import LONGEST_SIDE, Footage, open_footage
from app.render.film.framing import choose_view
from app.render.film.performance import FilmOptions, Performance, Voice
from app.render.film.tracking import FaceFinder, Track, face_at, face_region
from app.render.timing import room_for_encoder, timed

OUTPUT_NAME = "output.mp4"
DEFAULT_CACHE_BYTES = 512 * 1024**2

LONGEST_CUT_SIDE = 4096
"""Photos of which a part or another size is asked are read with this many pixels at most along the longer side."""

_BATCH_PIXELS = 24_000_000
"""A batch never has more pixels than this (72 MB of frames), for large templates."""

Asked = TypeVar("Asked", bound=FilmOptions)
Heard = TypeVar("Heard", bound=Voice)


class FilmRenderer(Renderer, Generic[Asked, Heard]):
    """Renders with torch on one device. Settings: `cache_dir` (none: no cache of template analyses), `cache_bytes`."""

    batch_frames: ClassVar[Mapping[str, int]]
    """Frames in flight by type of device (`cpu`, `cuda`): enough to keep it busy, little enough to cancel within a
    fraction of a second."""

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings or {})
        self.device = torch.device("cpu")
        self.finder: FaceFinder | None = None

    def load(self, device: str) -> None:
        """Load the face models onto `device`; a renderer adds its own."""
        self.device = torch.device(device)
        folder = self.settings.get("cache_dir")
        limit = int(self.settings.get("cache_bytes", DEFAULT_CACHE_BYTES))
        cache = TrackCache(Path(folder), limit) if folder else None
        self.finder = FaceFinder(FaceAnalyser(self.device), cache)

    @abstractmethod
    def understand(self, options: Mapping[str, Any]) -> Asked:
        """The task's options, which were validated when it was accepted."""

    @abstractmethod
    def listen(self, audio: Path, heard: Callable[[int], None]) -> Heard:
        """Analyse the speech as it is decoded; `heard(n)` is called along the way with a number that grows.

        Raises CodedError where the audio cannot be decoded.
        """

    @abstractmethod
    def prepare(self, job: RenderJob, options: Asked, footage: Footage, voice: Heard, track: Track) -> Performance:
        """What is played into the frames of `footage`, whose face is at `track`."""

    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Render `job`. Raises CodedError (INPUT_NO_FACE, unreadable input, full disk ...) and `Cancelled`."""
        if self.finder is None:
            raise RuntimeError("load() comes before render()")
        options = self.understand(job.options)
        started = time.perf_counter()
        stages: dict[str, float] = {}
        with torch.inference_mode(), room_for_encoder(self.device), ExitStack() as opened:
            whole = opened.enter_context(closing(_open(job.source, options)))
            with timed(stages, "analyse_speech"):
                voice = self.listen(job.audio, lambda heard: progress.report(Phase.ANALYSE, heard, 0))
            count = voice.frame_count(whole.rate)
            waited = whole.seconds
            with timed(stages, "analyse_face"):
                track = self.finder.find(
                    whole,
                    job.source,
                    job.source_sha256,
                    count,
                    lambda done, total: progress.report(Phase.ANALYSE, done, total),
                    batch_scale=job.batch_scale,
                )
            stages["analyse_face"] -= whole.seconds - waited
            longest = options.max_side or (LONGEST_SIDE if whole.still else None)
            view = choose_view(options.crop, longest, whole.width, whole.height, track.pixels, track.present)
            footage = whole
            if not view.shows_all_of(whole.width, whole.height):
                footage = opened.enter_context(closing(whole.seen_through(view)))
                track = replace(track, pixels=view.points(track.pixels))
            with timed(stages, "render"):
                performance = self.prepare(job, options, footage, voice, track)
            usual = min(self.batch_frames[self.device.type], _BATCH_PIXELS // (footage.width * footage.height))
            batch = Batch(usual, job.batch_scale)
            self._film(job, options, footage, performance, count, batch, progress, stages)
            stages["decode"] = whole.seconds if footage is whole else whole.seconds + footage.seconds
        return RenderResult(
            path=job.output_dir / OUTPUT_NAME,
            frames=count,
            fps=float(footage.rate),
            duration_s=float(count / footage.rate),
            width=footage.width,
            height=footage.height,
            seconds=time.perf_counter() - started,
            stages=stages,
            articulation=performance.articulation,
            facts={
                "frames_without_face": performance.faceless,
                "frames_covered": performance.covered,
                "face_at": face_at(track),
                "face_region": face_region(track),
                "analysis_cached": track.cached,
                "frames_analysed": len(track.present),
                "batch": batch.size,
                **performance.facts,
            },
        )

    def _film(
        self,
        job: RenderJob,
        options: Asked,
        footage: Footage,
        performance: Performance,
        count: int,
        batch: Batch,
        progress: Progress,
        stages: dict[str, float],
    ) -> None:
        """Play and write all frames."""
        stages["encode_wait"] = 0.0
        crf, preset = options.encoding
        done = 0
        writer = VideoWriter(
            job.output_dir / OUTPUT_NAME,
            footage.width,
            footage.height,
            footage.rate,
            job.audio,
            crf=crf,
            preset=preset,
            encoder=h264_encoder(str(self.device)),
        )
        with writer:
            for frames, numbers in footage.batches(batch.size, count):
                with timed(stages, "render"):
                    performance.play(frames, numbers, done, batch)
                with timed(stages, "encode_wait"):
                    writer.write(frames.numpy(), copy=footage.reuses_frames)
                done += len(frames)
                progress.report(Phase.RENDER, done, count)
            progress.report(Phase.ENCODE, 0, count)
            with timed(stages, "encode_wait"):
                writer.close()
            progress.report(Phase.ENCODE, count, count)
        stages["encode"] = writer.encode_seconds


def _open(source: Path, options: FilmOptions) -> Footage:
    """The source; of a large photo as much as a part of it may need."""
    as_usual = options.crop == "none" and options.max_side is None
    return open_footage(source, options.fps, LONGEST_SIDE if as_usual else LONGEST_CUT_SIDE)
