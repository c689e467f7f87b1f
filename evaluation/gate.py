"""Calibrates the quality gate: `python -m evaluation.gate [voices ...]` renders, breaks, judges, and reports.

Every source is made to speak every voice; each of these videos is judged as it is (it must pass) and broken in all the
ways of `evaluation.faults` (it must not). Run it again after every change of the speech model, the renderers or the
limits in `app/quality/scoring.py`. Results go to docs/quality-gate.md between its marks.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

from app.media.encode import VideoWriter
from app.media.image import load_image
from app.quality.gate import Gate, Judgement
from app.quality.scoring import ACCEPTED
from app.render.contract import Phase, RenderJob, RenderResult
from app.render.warp.options import WarpOptions
from app.render.warp.renderer import WarpRenderer
from evaluation.faults import FAULTS, Made, read_frames, read_sound, write
from evaluation.material import VOICES
from evaluation.page import GATE_PAGE, write_section
from evaluation.waves import RATE, write_wave

ROOT = Path(__file__).parents[1]
SPOKEN = (*VOICES.values(), ROOT / "tests" / "speech" / "data" / "librivox_amiable.wav")
PORTRAITS = (ROOT / "samples" / "portrait.png", ROOT / "tests" / "face" / "data" / "astronaut.jpg")
LONGEST_S = 8.0


@dataclass
class Case:
    """One judged video: of `kind` (`good`, or a fault's name)."""

    kind: str
    source: str
    voice: str
    judgement: Judgement


@dataclass
class Report:
    """All cases."""

    cases: list[Case] = field(default_factory=list)

    def add(self, case: Case) -> None:
        """Keep it, and say it."""
        self.cases.append(case)
        print(f"{case.kind}: {case.source}, {case.voice}: {case.judgement}", flush=True)

    def page(self) -> str:
        """The measured part of the page."""
        good = [case.judgement.confidence for case in self.cases if case.kind == "good"]
        bad = [case.judgement.confidence for case in self.cases if case.kind != "good"]
        passed = sum(value >= ACCEPTED for value in bad)
        lines = [
            f"{len(good)} good videos: confidence {min(good):.2f} to {max(good):.2f}, median {np.median(good):.2f}; "
            f"{sum(value < ACCEPTED for value in good)} below {ACCEPTED}.",
            f"{len(bad)} broken ones: confidence {min(bad):.2f} to {max(bad):.2f}; {passed} at or above {ACCEPTED}.",
            "",
            "| video | judged | highest | lowest | decided by |",
            "|---|---|---|---|---|",
        ]
        for kind in ("good", *FAULTS):
            judged = [case.judgement for case in self.cases if case.kind == kind]
            if not judged:
                continue
            confidences = [judgement.confidence for judgement in judged]
            deciders = sorted({judgement.weakest for judgement in judged})
            lines.append(
                f"| {kind} | {len(judged)} | {max(confidences):.2f} | {min(confidences):.2f} | {', '.join(deciders)} |"
            )
        return "\n".join(lines)


class _Quiet:
    def report(self, phase: Phase, done: int, total: int) -> None:
        """Nobody listens."""

    def check(self) -> None:
        """Nobody cancels."""


def sources(folder: Path, longest: int) -> Iterator[Path]:
    """Two portraits of at most `longest` pixels, and a template: one of the portraits, panned."""
    for portrait in PORTRAITS:
        path = folder / f"{portrait.stem}.png"
        cv2.imwrite(str(path), load_image(portrait, longest)[:, :, ::-1])
        yield path
    picture = load_image(PORTRAITS[0], longest)
    template = folder / "template.mp4"
    side = picture.shape[0] - 40
    with VideoWriter(template, side, side, 25, None, crf=12) as writer:
        for number in range(40):
            writer.write(picture[None, number : number + side, number // 2 : number // 2 + side])
    yield template


def voices(paths: list[Path], folder: Path) -> list[Path]:
    """Every voice as a wav file of at most `LONGEST_S`."""
    cut = []
    for path in paths:
        samples = read_sound(path)[: round(LONGEST_S * RATE)]
        cut.append(write_wave(folder / f"{path.stem}.wav", samples))
    return cut


def calibrate(paths: list[Path], longest: int) -> Report:
    """Render, break and judge everything."""
    report = Report()
    renderer, gate = WarpRenderer(), Gate("cpu")
    renderer.load("cpu")
    with tempfile.TemporaryDirectory(prefix="greenroom-gate-") as name:
        folder = Path(name)
        spoken = voices(paths, folder)
        for source in sources(folder, longest):
            rendered = [_render(renderer, source, voice, folder) for voice in spoken]
            for number, (job, result) in enumerate(rendered):
                other = rendered[(number + 1) % len(rendered)][1]
                _judge_all(gate, job, result, other, folder, report)
    return report


def _render(renderer: WarpRenderer, source: Path, voice: Path, folder: Path) -> tuple[RenderJob, RenderResult]:
    out = folder / f"{source.stem}-{voice.stem}"
    out.mkdir()
    options = WarpOptions(seed=1).model_dump()
    job = RenderJob(source, voice, out, options)
    return job, renderer.render(job, _Quiet())


def _judge_all(
    gate: Gate, job: RenderJob, result: RenderResult, other: RenderResult, folder: Path, report: Report
) -> None:
    frames = read_frames(result.path)
    made = Made(
        frames,
        read_sound(job.audio),
        Fraction(result.fps),
        _as_long(read_frames(other.path), len(frames)),
        _as_long(read_sound(other.path), len(read_sound(job.audio))),
    )
    report.add(Case("good", job.source.name, job.audio.name, gate.judge(job, result, lip_sync=True)))
    for name, fault in FAULTS.items():
        broken = write(fault(made), folder, result)
        report.add(Case(name, job.source.name, job.audio.name, gate.judge(job, broken, lip_sync=True)))


def _as_long(values: np.ndarray, count: int) -> np.ndarray:
    """The first `count`, from the start again where there are fewer."""
    return values[np.arange(count) % len(values)]


def main() -> None:
    """Measure and write the page; exit 1 where a threshold of `ACCEPTED` does not part good from broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("voices", nargs="*", type=Path, help="more wav files of one speaker each")
    parser.add_argument("--longest", type=int, default=320, help="longest side of the portraits in pixels")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {GATE_PAGE.name}")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    report = calibrate([*SPOKEN, *arguments.voices], arguments.longest)
    print(report.page())
    wrong = [case for case in report.cases if (case.kind == "good") != (case.judgement.confidence >= ACCEPTED)]
    for case in wrong:
        print(f"wrong: {case.kind}, {case.source}, {case.voice}: {case.judgement}")
    if arguments.write:
        write_section("measured", report.page(), GATE_PAGE)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
