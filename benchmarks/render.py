"""The built-in renderer on this machine: `python -m benchmarks.render`.

A 512x512 portrait and a 1280x720 template (its analysis cached) speak the sample; each is rendered three times and the
fastest counts. Beside it, in the same run, the very frames of the result are encoded once more and nothing else is
done: the speed that no renderer could pass. Then ten seconds and ten minutes of speech, for memory. With --write the
figures replace those of docs/quality.md, with how busy the machine was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.media.encode import VideoWriter
from app.media.video_in import VideoSource
from app.render import registry
from app.render.contract import Renderer, RenderJob, RenderResult
from benchmarks import material
from benchmarks.bare import Silent
from evaluation.page import write_section

ROUNDS = 3
TARGETS = {"portrait 512x512": 100.0, "template 1280x720": 45.0}
"""Frames a second on two cores, from the files in to the file out."""
OF_ENCODING = 0.45
"""Share of the speed of encoding alone that is to be reached."""
LONG_S, SHORT_S = 600, 10
FLAT_MB = 60
"""Memory that ten minutes may take more than ten seconds."""


@dataclass(frozen=True)
class Measured:
    """The fastest of the rounds."""

    name: str
    result: RenderResult
    encode_fps: float
    processor_ms: float
    """Processor time of all threads for a frame, encoder included."""

    @property
    def fps(self) -> float:
        """Frames a second, end to end."""
        return self.result.frames / self.result.seconds


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--options", default="{}", help="options of warp as JSON")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/quality.md")
    parser.add_argument("--speech-seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = json.loads(arguments.options)
    load = os.getloadavg()[0]
    if arguments.speech_seconds is not None:
        print(peak_mb(arguments.speech_seconds, options))
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        renderer = registry.create("warp", {"cache_dir": f"{folder}/cache", "cache_bytes": "268435456"})
        renderer.load("cpu")
        speech = material.long_speech(place / "speech.wav", 3)
        sources = zip(TARGETS, (material.portrait(), material.template(place / "template.mp4")), strict=True)
        rows = [measure(renderer, name, source, speech, place, options) for name, source in sources]
    for row in rows:
        show(row)
    short, long = (peak_in_child(seconds, arguments.options) for seconds in (SHORT_S, LONG_S))
    verdict = "flat" if long - short <= FLAT_MB else "GROWS"
    memory = f"{short:.0f} MB at {SHORT_S} s of speech, {long:.0f} MB at {LONG_S} s: {verdict}"
    print(f"memory: {memory}")
    if arguments.write:
        write_section("speed", page_section(rows, memory, load))


def page_section(rows: list[Measured], memory: str, load: float) -> str:
    """What docs/quality.md says; `load` is the load average before the first round."""
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"On {cores} cores, load average {load:.1f} before the run.",
        "",
        "| | end to end | target | encoding alone | share of it | processor time a frame, encoder included |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.fps:.0f} frames/s | {TARGETS[row.name]:.0f} | {row.encode_fps:.0f} frames/s "
        f"| {row.fps / row.encode_fps:.0%} | {row.processor_ms:.1f} ms |"
        for row in rows
    ]
    return "\n".join([*lines, "", f"Memory: {memory}."])


def measure(
    renderer: Renderer, name: str, source: Path, speech: Path, place: Path, options: dict[str, Any]
) -> Measured:
    """Render `ROUNDS` times, once before to fill the cache, then encode alone."""
    best: RenderResult | None = None
    least = float("inf")
    for number in range(ROUNDS + 1):
        spent = time.process_time()
        result = render(renderer, source, speech, place / f"{name}-{number}", options)
        least = min(least, time.process_time() - spent)
        if number and (best is None or result.seconds < best.seconds):
            best = result
    assert best is not None
    return Measured(name, best, encoding_alone(best, speech, place / "again.mp4"), 1000 * least / best.frames)


def render(renderer: Renderer, source: Path, speech: Path, out: Path, options: dict[str, Any]) -> RenderResult:
    """One job into a folder of its own."""
    out.mkdir()
    return renderer.render(RenderJob(source, speech, out, registry.validate_options("warp", options)), Silent())


def encoding_alone(result: RenderResult, speech: Path, path: Path) -> float:
    """Frames a second of writing the result's own frames with its sound once more; the best of the rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        seconds = 0.0
        with (
            VideoSource(result.path) as video,
            VideoWriter(path, result.width, result.height, video.rate, speech) as out,
        ):
            for batch in video.batches(64, video.frame_count):
                started = time.perf_counter()
                out.write(batch)
                seconds += time.perf_counter() - started
            started = time.perf_counter()
            out.close()
            seconds += time.perf_counter() - started
        # The encoder works on while the next batch is decoded: what it was busy with is the whole cost.
        best = max(best, result.frames / max(seconds, out.encode_seconds))
    return best


def show(row: Measured) -> None:
    """Speed against its targets, then the share of each stage."""
    share = row.fps / row.encode_fps
    target = TARGETS[row.name]
    fast = "reached" if row.fps >= target else "MISSED"
    near = "reached" if share >= OF_ENCODING else "MISSED"
    print(f"{row.name}: {row.fps:.0f} frames/s end to end (target {target:.0f}: {fast})")
    print(f"  {share:.0%} of encoding alone, {row.encode_fps:.0f} frames/s (target {OF_ENCODING:.0%}: {near})")
    print(f"  {row.processor_ms:.2f} ms of processor time a frame, all threads and the encoder included")
    for stage, seconds in row.result.stages.items():
        milliseconds = 1000 * seconds / row.result.frames
        print(f"  {stage:16} {seconds / row.result.seconds:6.1%} of the time, {milliseconds:6.2f} ms a frame")


def peak_mb(seconds: float, options: dict[str, Any]) -> float:
    """The most memory of this process after rendering the portrait with that much speech."""
    with tempfile.TemporaryDirectory() as folder:
        renderer = registry.create("warp", {})
        renderer.load("cpu")
        times = max(1, round(seconds / material.speech_seconds()))
        speech = material.long_speech(Path(folder) / "speech.wav", times)
        render(renderer, material.portrait(), speech, Path(folder) / "out", options)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM"].split()[0]) / 1024  # getrusage would tell the parent's peak where that is higher


def peak_in_child(seconds: float, options: str) -> float:
    """`peak_mb` in a process of its own: a peak never sinks again."""
    command = [sys.executable, "-m", "benchmarks.render", "--speech-seconds", str(seconds), "--options", options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
