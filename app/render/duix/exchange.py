"""The folder that is shared with a Duix server: inputs go there, results lie there, and nothing may stay."""

from __future__ import annotations

import glob
import shutil
import time
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from app.media.audio_in import audio_length
from app.media.boxes import declared_end, top_level_boxes
from app.media.encode import VideoWriter
from app.media.image import load_image
from app.media.pictures import is_picture
from app.media.speech_wav import RATE, write_speech_wav
from app.render.contract import Phase, Progress
from app.retry.taxonomy import CodedError, FailureCode

_INPUTS = "greenroom"
"""Our folder within the shared one; a folder for each task in it."""
_RESULTS = "temp"
"""The server names results as if this folder were its root."""
_ABANDONED = "abandoned"
_STILL_FPS = Fraction(25)
_STILL_SIDE = 1280
_BATCH = 16


class Exchange:
    """One shared folder, as this side and as the server name it."""

    def __init__(self, shared_dir: Path, server_dir: str) -> None:
        self._here = shared_dir
        self._there = PurePosixPath(server_dir)

    def put(self, code: str, source: Path, audio: Path, progress: Progress) -> tuple[str, str]:
        """Lay out the inputs of task `code`; the server's paths of video and speech.

        A picture becomes a video as long as the speech, since the server takes nothing else. Raises CodedError
        UPSTREAM_CONNECTION, reason `shared_dir`, where the folder cannot be written.
        """
        folder = self._folder(code)
        try:
            self._here.stat()  # a share that is not mounted must not be taken for an empty one
            (self._here / _INPUTS).mkdir(exist_ok=True)
            folder.mkdir()
            write_speech_wav(audio, folder / "audio.wav", partial(progress.report, Phase.FETCH))
            with source.open("rb") as file:
                picture = is_picture(file.read(64))
            if picture:
                _write_still(source, folder / "source.mp4", audio, progress)
            else:
                shutil.copyfile(source, folder / "source.mp4")
        except OSError as error:
            self.remove(code)
            raise _unshared(self._here, error) from error
        except BaseException:
            self.remove(code)
            raise
        there = self._there / _INPUTS / code
        return str(there / "source.mp4"), str(there / "audio.wav")

    def result(self, code: str, named: str = "") -> Path | None:
        """Where the video of task `code` lies here, `named` as the server named it; None where it is not (yet) whole.

        Raises CodedError UPSTREAM_REJECTED, reason `outside`, for a name that leads out of the shared folder.
        """
        name = PurePosixPath(named or default_result(code))
        inside = (
            self._here / name.relative_to(self._there)
            if name.is_relative_to(self._there)
            else self._here / _RESULTS / str(name).lstrip("/")
        )
        if not inside.resolve().is_relative_to(self._here.resolve()):
            message = f"The Duix server names a result outside of its folder: {named[:200]!r}."
            raise CodedError(FailureCode.UPSTREAM_REJECTED, message, reason="outside")
        try:
            boxes = top_level_boxes(inside)
            whole = any(box.kind == "moov" for box in boxes) and declared_end(boxes) == inside.stat().st_size
        except OSError:
            return None
        return inside if whole else None

    def abandon(self, code: str) -> None:
        """Nobody waits for task `code` any more, but the server still works on its inputs."""
        with suppress(OSError):  # a folder that is away: its inputs are removed when they are stale
            (self._folder(code) / _ABANDONED).touch()

    def abandoned(self) -> list[str]:
        """The tasks that the server may still be rendering for nobody."""
        return sorted(mark.parent.name for mark in (self._here / _INPUTS).glob(f"*/{_ABANDONED}"))

    def remove(self, code: str) -> None:
        """Remove the inputs of task `code`, its video, and what the server left of its own making beside it."""
        shutil.rmtree(self._folder(code), ignore_errors=True)
        for left in (self._here / _RESULTS).glob(f"{glob.escape(code)}*"):
            with suppress(OSError):
                left.unlink()

    def remove_stale(self, older_s: float) -> None:
        """Remove what killed workers left: folders of tasks that were laid out more than `older_s` seconds ago."""
        limit = time.time() - older_s
        for folder in (self._here / _INPUTS).glob("*"):
            try:
                old = folder.stat().st_mtime < limit
            except FileNotFoundError:
                continue  # another slot has just removed it
            if old:
                self.remove(folder.name)

    def _folder(self, code: str) -> Path:
        return self._here / _INPUTS / code


def default_result(code: str) -> str:
    """How the server names the video of task `code`."""
    return f"/{code}-r.mp4"


def _unshared(folder: Path, error: OSError) -> CodedError:
    return CodedError(
        FailureCode.UPSTREAM_CONNECTION,
        f"The folder that is shared with the Duix server cannot be used: {folder}: {error.strerror or error}.",
        "Mount the server's data folder there (`shared_dir` of the tier), writable for this service.",
        reason="shared_dir",
    )


def _write_still(picture: Path, target: Path, audio: Path, progress: Progress) -> None:
    pixels = load_image(picture, _STILL_SIDE)
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    frames = max(1, round(audio_length(audio, RATE) / RATE * _STILL_FPS))
    batch = np.repeat(pixels[None, :height, :width], _BATCH, axis=0)
    with VideoWriter(target, width, height, _STILL_FPS, None) as writer:
        while writer.frames < frames:
            writer.write(batch[: frames - writer.frames])
            progress.report(Phase.FETCH, writer.frames, frames)
        writer.close()
