"""What judging costs beside rendering: `python -m benchmarks.gate`.

`warp`, the quickest renderer, makes a 512x512 portrait and a 1280x720 template (its analysis cached) speak 6, 12 and 36
seconds, and the gate judges each video, in one process. Processor time of all threads counts, the least of the rounds:
on a busy machine it is more for both. With --write the figures replace those of docs/quality-gate.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from app.quality.gate import Gate
from app.render import registry
from app.render.contract import Renderer, RenderJob
from benchmarks import material
from benchmarks.bare import Silent
from evaluation.page import GATE_PAGE, write_section

TIMES = (1, 2, 6)
"""The sample speech so many times over."""
TARGET = 0.15


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time of the cheapest round of each."""

    source: str
    frames: int
    fps: float
    render_s: float
    judge_s: float

    @property
    def share(self) -> float:
        """Of the time of rendering."""
        return self.judge_s / self.render_s


def measure(renderer: Renderer, gate: Gate, name: str, job: RenderJob, rounds: int) -> Cost:
    """Render and judge `rounds` times, once before to fill the cache."""
    rendering, judging = [], []
    for number in range(rounds + 1):
        began = time.process_time()
        result = renderer.render(job, Silent())
        rendered = time.process_time()
        gate.judge(job, result, lip_sync=True)
        if number:
            rendering.append(rendered - began)
            judging.append(time.process_time() - rendered)
        result.path.unlink()
    return Cost(name, result.frames, result.fps, min(rendering), min(judging))


def page_section(costs: list[Cost], load: float) -> str:
    """What the page says; `load` is the load average before the first round."""
    lines = [
        f"On {len(os.sched_getaffinity(0))} cores, load average {load:.1f} before the run.",
        "",
        "| `warp` | video | rendering | judging | share |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {cost.source} | {cost.frames / cost.fps:.0f} s | {cost.render_s:.2f} s | {cost.judge_s:.2f} s "
        f"| {cost.share:.1%} |"
        for cost in costs
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write; exit 1 where judging costs more than `TARGET` of rendering."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"put the figures into {GATE_PAGE.name}")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        renderer = registry.create("warp", {"cache_dir": f"{folder}/cache", "cache_bytes": "268435456"})
        renderer.load("cpu")
        gate = Gate("cpu")
        gate.load()
        options = registry.validate_options("warp", {})
        sources = {"portrait 512x512": material.portrait(), "template 1280x720": material.template(place / "t.mp4")}
        for name, source in sources.items():
            for times in TIMES:
                speech = material.long_speech(place / f"{times}.wav", times)
                costs.append(measure(renderer, gate, name, RenderJob(source, speech, place, options), arguments.rounds))
                print(costs[-1], f"{costs[-1].share:.1%}", flush=True)
    print(page_section(costs, load))
    if arguments.write:
        write_section("cost", page_section(costs, load), GATE_PAGE)
    raise SystemExit(any(cost.share > TARGET for cost in costs))


if __name__ == "__main__":
    main()
