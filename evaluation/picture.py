"""Measures the built-in renderer's picture: `python -m evaluation.picture [faces ...]`; about ten minutes on two cores.

Every face says the English sentence and one of the other voices in turn (all of them with --all), or as much of them as
--seconds allows. Figures and sheets go to docs/quality.md, between its marks, and to docs/img.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.media.encode import VideoWriter
from app.media.image import load_image
from app.render.film import points
from app.render.film.pose import fit_poses
from app.render.warp.mask import LowerFaceMask
from app.render.warp.rest import rest_face
from app.render.warp.subject import TeethPlane
from app.render.warp.voice import Voice, listen
from app.speech.channels import CLOSURE, JAW, SPEECH
from evaluation import sheets
from evaluation.material import FACES, ROOT, VOICES, Studio, lip_gaps, read_frames
from evaluation.page import write_section
from evaluation.waves import shortened

WITH_PAUSES = "german"
DUBBED = 3  # faces
STILL = {"blinks": False, "head_motion": 0.0, "gaze": 0.0}
SEALED = 0.04
"""Lips nearer than this, in distances of the outer eye corners, count as sealed: the mesh sees shut lips of photos up
to 0.03 apart."""

_SHUT, _SILENT = 0.9, 0.1  # of the closure curve from here on, of the speech curve up to here
_ONE_IN = 5  # frames: enough for a PSNR
_MOUTH = 0.30  # half the width of what counts as mouth where flicker is measured, in units


@dataclass(frozen=True)
class Spoken:
    """One face saying one voice: shares of closure and silence frames whose lips are sealed, the lips' distance in
    the widest twentieth of the frames, and how well it follows the jaw's curve (correlation)."""

    face: str
    voice: str
    sealed: float
    rested: float
    widest: float
    follows: float


@dataclass(frozen=True)
class Untouched:
    """One face with blinks, gaze and movements off, against the same encode of the photo: PSNR outside the lower face
    in dB; mean absolute difference of consecutive silent frames in the lower face, mouth excepted, in levels of 255, of
    the video and of the photo's encode."""

    face: str
    psnr: float
    flicker: float
    codec: float


def main(wanted: Sequence[str], every_voice: bool, seconds: float | None) -> None:
    """Measure, draw, write; what is known is written after every face, so that a run may be stopped."""
    faces = {name: FACES[name] for name in wanted or FACES}
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio.open(Path(folder))
        assert studio.renderer.speech is not None
        audio = VOICES if seconds is None else shortened(VOICES, seconds, Path(folder))
        voices = {name: listen(path, studio.renderer.speech, lambda _: None) for name, path in audio.items()}
        spoken, untouched, dubbed, moments = [], [], [], []
        if not wanted:
            for name, sheet in sheets.of_parts(studio, faces, audio["english"]).items():
                sheets.save(ROOT / "docs" / "img" / name, sheet)
        others = cycle(name for name in VOICES if name != "english")
        for face, photo in faces.items():
            for voice in VOICES if every_voice else ("english", next(others)):
                result = studio.film(f"{face}-{voice}", photo, audio[voice], seed=1)
                frames = read_frames(result.path)
                spoken.append(measured(studio, face, voice, frames, voices[voice]))
            moments.append(sheets.moments(frames))
            untouched.append(left_alone(studio, face, photo, audio[WITH_PAUSES], voices[WITH_PAUSES]))
            if len(dubbed) < DUBBED:
                dubbed.append(dub(studio, face, photo, audio, voices["english"]))
            print(*spoken[-2:], untouched[-1], sep="\n", flush=True)
            if not wanted:
                write_section("picture", report(spoken, untouched, dubbed, seconds))
                sheets.save(ROOT / "docs" / "img" / "speaking.jpg", sheets.stacked(moments, [], 120))


def measured(studio: Studio, face: str, voice: str, frames: Tensor, heard: Voice) -> Spoken:
    """Look at a render's lips."""
    gaps = lip_gaps(studio.track(frames))
    said = heard.articulation(0, len(frames), Fraction(25))
    shut, silent = said[:, CLOSURE] > _SHUT, _settled(said[:, SPEECH] < _SILENT)
    return Spoken(
        face,
        voice,
        sealed=float((gaps[shut] < SEALED).mean()) if shut.any() else float("nan"),
        rested=float((gaps[silent] < SEALED).mean()) if silent.any() else float("nan"),
        widest=float(np.quantile(gaps, 0.95)),
        follows=float(np.corrcoef(gaps, said[:, JAW] * (1 - said[:, CLOSURE]))[0, 1]),
    )


def dub(studio: Studio, face: str, photo: Path, audio: dict[str, Path], heard: Voice) -> Spoken:
    """Let a template that speaks Mandarin, loudly and with a lively head, say the English sentence."""
    template = studio.film(f"{face}-loud", photo, audio["mandarin"], strength=1.4, head_motion=1.0, seed=1).path
    result = studio.film(f"{face}-dubbed", template, audio["english"])
    return measured(studio, face, "english", read_frames(result.path), heard)


def left_alone(studio: Studio, face: str, photo: Path, audio: Path, heard: Voice) -> Untouched:
    """Compare a render without blinks, gaze and movements with the photo as a video."""
    result = studio.film(f"{face}-still", photo, audio, **STILL)
    frames = read_frames(result.path)
    picture = torch.from_numpy(load_image(photo))[: result.height, : result.width].contiguous()
    path = studio.folder / f"{face}.mp4"
    with VideoWriter(path, result.width, result.height, 25.0, None) as writer:
        for _ in range(result.frames):
            writer.write(picture[None].numpy())
    same = read_frames(path)
    lower, mouth = _lower_face(studio, picture)
    few = slice(None, None, _ONE_IN)
    error = (frames[few, ~lower].float() - same[few, ~lower].float()).square().mean()
    said = heard.articulation(0, len(frames), Fraction(25))
    silent = torch.from_numpy(_settled(said[:, SPEECH] < _SILENT))[1:].nonzero()[:, 0]
    ring = lower & ~mouth
    flicker, codec = (_change(video[:, ring], silent) for video in (frames, same))
    return Untouched(face, float(10 * torch.log10(255**2 / error)), flicker, codec)


def _change(pixels: Tensor, numbers: Tensor) -> float:
    """Mean absolute difference of the frames `numbers` of pixels [T, N, 3] and the frames after them."""
    if not len(numbers):
        return float("nan")
    return float((pixels[numbers + 1].float() - pixels[numbers].float()).abs().mean())


def _settled(silent: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Silence that has lasted three frames and lasts three more: lips take their time."""
    padded = np.pad(silent, 3, constant_values=True)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 7)
    return np.asarray(windows.all(1))


def _lower_face(studio: Studio, picture: Tensor) -> tuple[Tensor, Tensor]:
    """What the renderer may change, and the mouth in it, [H, W] bool."""
    pixels = points.select(torch.from_numpy(studio.analyser.portrait(picture).landmarks))
    seen = torch.tensor([True])
    pose = fit_poses(pixels, seen)
    rest = rest_face(pose.to_head(pixels), seen)
    height, width = picture.shape[:2]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = (torch.stack([x, y], 2)[None] - pose.origin[:, None, None, :2]) / pose.scale[:, None, None, None]
    u, v = TeethPlane(pose, 0.0).to_plane(places)[0].unbind(-1)
    reach = 2 * int(0.06 * float(pose.scale[0]) + 1) + 1
    weight = LowerFaceMask(rest.shape).weight(u, v)
    lower = torch.nn.functional.max_pool2d(weight[None, None], 2 * reach + 1, 1, reach)[0, 0] > 0
    return lower, (u.abs() < _MOUTH + 0.1) & (v.abs() < _MOUTH)


def report(spoken: list[Spoken], untouched: list[Untouched], dubbed: list[Spoken], seconds: float | None = None) -> str:
    """The section of the page, without its sheets."""
    faces = list(dict.fromkeys(row.face for row in spoken))
    voices = [voice for voice in VOICES if any(row.voice == voice for row in spoken)]
    length = "" if seconds is None else f", the first {seconds:g} s of each voice and a second of silence"
    lines = [
        f"{len(faces)} faces{length}.",
        "",
        "| face | " + " | ".join(voices) + " | silence | widest | follows | PSNR outside, dB | flicker (codec alone) |",
        "|---" * (len(voices) + 6) + "|",
    ]
    for face, still in zip(faces, untouched, strict=True):
        mine = [row for row in spoken if row.face == face]
        by_voice = {row.voice: f"{row.sealed:.0%}" for row in mine}
        seals = " | ".join(by_voice.get(voice, "") for voice in voices)
        rest, wide, follows = (
            float(np.nanmean([getattr(row, name) for row in mine])) for name in ("rested", "widest", "follows")
        )
        flicker = f"{still.flicker:.2f} ({still.codec:.2f})"
        lines.append(f"| {face} | {seals} | {rest:.0%} | {wide:.2f} | {follows:.2f} | {still.psnr:.1f} | {flicker} |")
    sealed = float(np.nanmean([row.sealed for row in spoken]))
    rested = float(np.nanmean([row.rested for row in spoken]))
    lines += [
        "",
        f"Over all: {sealed:.1%} of closures sealed, {rested:.1%} of silent frames at rest, PSNR outside the "
        f"lower face at least {min(row.psnr for row in untouched):.1f} dB.",
        "",
        f"Templates that themselves speak ({', '.join(row.face for row in dubbed)}: Mandarin with a wide mouth and a "
        f"lively head, dubbed in English): {np.nanmean([row.sealed for row in dubbed]):.0%} of closures sealed, "
        f"follows the new jaw by {np.mean([row.follows for row in dubbed]):.2f}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", nargs="*", choices=[[], *FACES], help="these only, without writing anything")
    parser.add_argument("--all", action="store_true", help="every face says every voice")
    parser.add_argument("--seconds", type=float, help="of each voice at most, for a slow or busy machine")
    arguments = parser.parse_args()
    main(arguments.faces, arguments.all, arguments.seconds)
