"""What a program is given: the task's files in a form that it can read, and the folder that it may write to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from app.media.image import load_image, save_png
from app.media.pictures import is_picture
from app.media.soundfile import write_wav
from app.render.command.settings import CommandSettings
from app.render.command.template import fill, fill_json
from app.render.contract import Progress, RenderJob
from app.render.unchanged import film, open_footage

OUTPUT_NAME = "output.mp4"
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm")
"""Of files that a program may leave as its result."""

_PICTURE_S = Fraction(1)
"""Programs that take videos only play a short one over and over."""
_ENCODING = (16, "veryfast")


@dataclass(frozen=True, slots=True)
class Desk:
    """The attempt's own folder as the program sees it, and what its placeholders stand for."""

    work: Path
    output: Path
    values: Mapping[str, Any]


def lay_out(job: RenderJob, settings: CommandSettings, device: str, progress: Progress) -> Desk:
    """Prepare the inputs below the attempt's directory. Raises CodedError (bad input, full disk), `Cancelled`."""
    work = job.output_dir / "work"
    results = work / "out"
    results.mkdir(parents=True)
    audio = work / "audio.wav"
    samples = write_wav(job.audio, audio, settings.audio_rate)
    seconds = Fraction(samples, settings.audio_rate)
    source = _source(job.source, work, settings, seconds, progress)
    values = settings.own_values | {
        "source": str(source),
        "source_name": source.name,
        "audio": str(audio),
        "audio_name": audio.name,
        "output": str(results / OUTPUT_NAME),
        "output_name": f"{results.name}/{OUTPUT_NAME}",
        "output_dir": str(results),
        "work": str(work),
        "device": settings.device or device,
    }
    values |= {f"options.{name}": value for name, value in job.options.items()}
    for name, text in settings.files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(fill_json(text, values))
    return Desk(work, results / OUTPUT_NAME, values)


def environment(settings: CommandSettings, desk: Desk, traceparent: str = "") -> dict[str, str]:
    """The service's environment without its own settings and its processes' limits, and what the tier adds.

    The mark by which a slot's processes are found stays. `traceparent` becomes TRACEPARENT, from which OpenTelemetry's
    tools and SDKs take what they belong to.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if (not name.startswith("GREENROOM_") or name == _MARK) and name not in _OF_SLOTS
    }
    trace = {"TRACEPARENT": traceparent} if traceparent else {}
    return (
        kept
        | {"PYTHONUNBUFFERED": "1"}
        | trace
        | {name: fill(text, desk.values) for name, text in settings.env.items()}
    )


_MARK = "GREENROOM_SLOT"
"""See `app.worker.strays`."""
_OF_SLOTS = frozenset({"OMP_NUM_THREADS", "TRACEPARENT", "TRACESTATE"})
"""A slot's process limits itself to one thread where it only waits; a trace is of one job."""


def find_video(desk: Desk) -> Path | None:
    """What the program made: `{output}`, or the newest video in `{output_dir}`."""
    if desk.output.is_file() and desk.output.stat().st_size:
        return desk.output
    found = [
        path
        for path in desk.output.parent.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.is_symlink() and path.is_file() and path.stat().st_size
    ]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def _source(given: Path, work: Path, settings: CommandSettings, seconds: Fraction, progress: Progress) -> Path:
    with given.open("rb") as file:
        head = file.read(16)
    if settings.source_as == "video":
        path = work / "source.mp4"
        with closing(open_footage(given, settings.source_fps)) as footage:
            once = _PICTURE_S if is_picture(head) else Fraction(getattr(footage, "frame_count", 1)) / footage.rate
            film(footage, path, None, min(once, max(seconds, _PICTURE_S)), progress, encoding=_ENCODING)
        return path
    suffix = _suffix(head)
    if not suffix:
        path = work / "source.png"
        save_png(load_image(given), path)
        return path
    path = work / f"source{suffix}"
    path.symlink_to(given.absolute())
    return path


def _suffix(head: bytes) -> str:
    """The usual end of a file's name by its first bytes; empty for a picture that programs may not read."""
    if is_picture(head):
        return ".jpg" if head.startswith(b"\xff\xd8") else ".png" if head.startswith(b"\x89PNG") else ""
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return ".mkv"
    return ".mov" if head[4:12] == b"ftypqt  " else ".mp4"
