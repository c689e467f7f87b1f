"""Do good videos pass the gate? `python -m evaluation.passing` renders with every face of the evaluation and judges.

Each face says every voice as a caller gets it by default, and one voice with options that change what the gate sees: a
mouth that hardly opens, a still head, other parts and sizes of the picture, another frame rate. The figures go to
docs/quality-gate.md with --write. It exits with 1 where one of them is below `ACCEPTED`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from app.quality.gate import Gate, Judgement
from app.quality.scoring import ACCEPTED
from app.render.contract import RenderJob
from app.render.warp.options import WarpOptions
from evaluation.material import FACES, VOICES, Studio
from evaluation.page import GATE_PAGE, write_section

VARIED: dict[str, dict[str, Any]] = {
    "strength 0.6": {"strength": 0.6},
    "head motion 0": {"head_motion": 0.0},
    "crop face": {"crop": "face"},
    "longest side 160": {"max_side": 160},
}
VOICE_OF_VARIED = "english"


@dataclass(frozen=True)
class Passed:
    """One good video: `kind` is its voice, or the option that differs."""

    kind: str
    face: str
    judgement: Judgement


def judge_face(face: str) -> list[Passed]:
    """Render and judge everything that one face says."""
    torch.set_num_threads(1)
    wanted: list[tuple[str, str, dict[str, Any]]] = [(voice, voice, {}) for voice in VOICES]
    wanted += [(kind, VOICE_OF_VARIED, options) for kind, options in VARIED.items()]
    passed = []
    with tempfile.TemporaryDirectory(prefix="greenroom-passing-") as folder:
        studio, gate = Studio.open(Path(folder)), Gate("cpu")
        for kind, voice, options in wanted:
            asked = WarpOptions(seed=1, **options).model_dump()
            result = studio.film(kind, FACES[face], VOICES[voice], **asked)
            job = RenderJob(FACES[face], VOICES[voice], result.path.parent, asked)
            passed.append(Passed(kind, face, gate.judge(job, result, lip_sync=True)))
            print(f"{face}, {kind}: {passed[-1].judgement}", flush=True)
            result.path.unlink()
    return passed


def page_section(passed: list[Passed]) -> str:
    """What the page says."""
    faces = len({one.face for one in passed})
    lines = [
        f"{faces} faces, each in {len(VOICES)} languages by default, and in {VOICE_OF_VARIED.title()} with options.",
        "",
        "| video | judged | lowest confidence | decided by | least `lip_agreement` |",
        "|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(one.kind for one in passed):
        judged = [one.judgement for one in passed if one.kind == kind]
        lowest = min(judged, key=lambda judgement: judgement.confidence)
        decided = f"{lowest.weakest}" if lowest.confidence < 1 else "-"
        agreement = min((judgement.values.get("lip_agreement", 1.0) for judgement in judged), default=1.0)
        lines.append(f"| {kind} | {len(judged)} | {lowest.confidence:.2f} | {decided} | {agreement:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", nargs="*", help=f"of {', '.join(FACES)}; all where none is named")
    parser.add_argument("--write", action="store_true", help=f"put the figures into {GATE_PAGE.name}")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as processes:
        passed = [one for face in processes.map(judge_face, arguments.faces or list(FACES)) for one in face]
    print(page_section(passed))
    if arguments.write:
        write_section("passing", page_section(passed), GATE_PAGE)
    wrong = [one for one in passed if one.judgement.confidence < ACCEPTED]
    for one in wrong:
        print(f"wrong: {one}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
