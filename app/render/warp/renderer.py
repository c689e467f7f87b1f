"""The built-in renderer: makes a photo or a template video speak by warping its own lower face."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch

from app.face.analyser import FaceAnalyser
from app.face.cache import TrackCache
from app.media.encode import VideoWriter, h264_encoder
from app.render.batching import Batch
from app.render.contract import Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.film.footage import LONGEST_SIDE, Footage, open_footage
from app.render.film.framing import choose_view
from app.render.film.tracking import FaceFinder, face_at
from app.render.timing import room_for_encoder, timed
from app.render.warp.options import WarpOptions
from app.render.warp.performance import Performance
from app.render.warp.subject import read_subject
from app.render.warp.voice import SpeechModel, listen
from app.speech.articulation import SpeechAnalyser

OUTPUT_NAME = "output.mp4"
DEFAULT_CACHE_BYTES = 512 * 1024**2

LONGEST_CUT_SIDE = 4096
"""Photos of which a part or another size is asked are read with this many pixels at most along the longer side."""

_BATCH = 16  # frames in flight: enough to keep kernels busy, little enough to cancel within a fraction of a second
_BATCH_PIXELS = 24_000_000  # and never more pixels than this (72 MB of frames), for large templates

_LEAST_STRENGTH = 0.3
"""With less the mouth is asked to hardly move, and nobody should wonder that it does not."""


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
        with torch.inference_mode(), room_for_encoder(self._device), ExitStack() as opened:
            whole = opened.enter_context(closing(self._open(job.source, options)))
            with timed(stages, "analyse_speech"):
                voice = listen(job.audio, self.speech, lambda rows: progress.report(Phase.ANALYSE, rows, 0))
            count = voice.frame_count(whole.rate)
            waited = whole.seconds
            with timed(stages, "analyse_face"):
                track = self.finder.find(
                    whole,
                    job.source,
                    job.source_sha256,
                    count,
                    lambda n, m: progress.report(Phase.ANALYSE, n, m),
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
                subject = read_subject(track.pixels, track.present)
                performance = Performance(job, options, footage, voice, track, subject, self._device)
            batch = Batch(min(_BATCH, _BATCH_PIXELS // (footage.width * footage.height)), job.batch_scale)
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
            articulation=voice.curve,
            facts={
                "frames_without_face": performance.faceless,
                "frames_covered": performance.covered,
                "blinks": performance.blinks,
                "face_at": face_at(track),
                "moves": _moves(options, footage.still),
                "lips_follow": options.strength >= _LEAST_STRENGTH,
                "analysis_cached": track.cached,
                "frames_analysed": len(track.present),
                "lips_parted_in_source": round(subject.rest.gap, 4),
                "batch": batch.size,
            },
        )

    def _open(self, source: Path, options: WarpOptions) -> Footage:
        """The source; of a large photo as much as a part of it may need."""
        as_usual = options.crop == "none" and options.max_side is None
        return open_footage(source, options.fps, LONGEST_SIDE if as_usual else LONGEST_CUT_SIDE)

    def _film(
        self,
        job: RenderJob,
        options: WarpOptions,
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
            encoder=h264_encoder(str(self._device)),
        )
        with writer:
            for frames, numbers in footage.batches(batch.size, count):
                with timed(stages, "render"):
                    performance.play(frames, numbers, done, batch)
                with timed(stages, "encode_wait"):
                    writer.write(frames.numpy())
                done += len(frames)
                progress.report(Phase.RENDER, done, count)
            progress.report(Phase.ENCODE, 0, count)
            with timed(stages, "encode_wait"):
                writer.close()
            progress.report(Phase.ENCODE, count, count)
        stages["encode"] = writer.encode_seconds


def _moves(options: WarpOptions, still: bool) -> list[str]:
    """What of the picture may change."""
    eyes = ["eyes"] if still and options.blinks_per_minute > 0 else []
    head = ["head"] if still and options.head_motion > 0 else []
    return ["lower_face", *eyes, *head]
