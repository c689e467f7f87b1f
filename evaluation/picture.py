"""Measures the built-in renderer's picture: `python -m evaluation.picture [faces ...]`; about ten minutes on two cores.

Every face says every voice. Figures and sheets go to docs/quality.md, between its marks, and to docs/img.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.media.encode import VideoWriter
from app.media.image import load_image
from app.render.warp import points
from app.render.warp.pose import fit_poses
from app.render.warp.region import LowerFaceMask
from app.render.warp.rest import rest_face
from app.render.warp.subject import TeethPlane
from app.render.warp.voice import Voice, listen
from app.speech.channels import CLOSURE, JAW, SPEECH
from evaluation import sheets
from evaluation.material import FACES, ROOT, VOICES, Studio, lip_gaps, read_frames
from evaluation.page import write_section

WITH_PAUSES = "german"
STILL = {"blinks": False, "head_motion": 0.0}
SEALED = 0.04
"""Lips nearer than this, in distances of the outer eye corners, count as sealed: the mesh sees shut lips of photos up
to 0.03 apart."""

_SHUT, _SILENT = 0.9, 0.1  # of the closure curve from here on, of the speech curve up to here
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
    """One face with blinks and movements off, against the same encode of the photo: PSNR outside the lower face in
    dB; mean absolute difference of consecutive silent frames in the lower face, mouth excepted, in levels of 255, of
    the video and of the photo's encode."""

    face: str
    psnr: float
    flicker: float
    codec: float


def main(wanted: Sequence[str]) -> None:
    """Measure, draw, write."""
    faces = {name: FACES[name] for name in wanted or FACES}
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio.open(Path(folder))
        assert studio.renderer.speech is not None
        voices = {name: listen(path, studio.renderer.speech, lambda _: None) for name, path in VOICES.items()}
        spoken, untouched = [], []
        for face, photo in faces.items():
            for voice, audio in VOICES.items():
                result = studio.film(f"{face}-{voice}", photo, audio, seed=1)
                spoken.append(measured(studio, face, voice, read_frames(result.path), voices[voice]))
                print(spoken[-1], flush=True)
            untouched.append(left_alone(studio, face, photo, voices[WITH_PAUSES]))
            print(untouched[-1], flush=True)
        if not wanted:
            write_section("picture", report(spoken, untouched))
            for name, sheet in sheets.all_of(studio, faces).items():
                sheets.save(ROOT / "docs" / "img" / name, sheet)


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


def left_alone(studio: Studio, face: str, photo: Path, heard: Voice) -> Untouched:
    """Compare a render without blinks and movements with the photo as a video."""
    result = studio.film(f"{face}-still", photo, VOICES[WITH_PAUSES], **STILL)
    frames = read_frames(result.path)
    picture = torch.from_numpy(load_image(photo))[: result.height, : result.width].contiguous()
    path = studio.folder / f"{face}.mp4"
    with VideoWriter(path, result.width, result.height, 25.0, None) as writer:
        for _ in range(result.frames):
            writer.write(picture[None].numpy())
    same = read_frames(path)
    lower, mouth = _lower_face(studio, picture)
    error = (frames[:, ~lower].float() - same[:, ~lower].float()).square().mean()
    said = heard.articulation(0, len(frames), Fraction(25))
    silent = torch.from_numpy(_settled(said[:, SPEECH] < _SILENT))[1:]
    ring = lower & ~mouth
    changes = [(video[1:, ring].float() - video[:-1, ring].float()).abs().mean((1, 2)) for video in (frames, same)]
    flicker, codec = (float(change[silent].mean()) if silent.any() else float("nan") for change in changes)
    return Untouched(face, float(10 * torch.log10(255**2 / error)), flicker, codec)


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


def report(spoken: list[Spoken], untouched: list[Untouched]) -> str:
    """The section of the page, without its sheets."""
    faces = list(dict.fromkeys(row.face for row in spoken))
    voices = list(dict.fromkeys(row.voice for row in spoken))
    lines = [
        "| face | " + " | ".join(voices) + " | silence | widest | follows | PSNR outside, dB | flicker (codec alone) |",
        "|---" * (len(voices) + 6) + "|",
    ]
    for face, still in zip(faces, untouched, strict=True):
        mine = [row for row in spoken if row.face == face]
        seals = " | ".join(f"{row.sealed:.0%}" for row in mine)
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
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", nargs="*", choices=[[], *FACES], help="these only, without writing anything")
    main(parser.parse_args().faces)
