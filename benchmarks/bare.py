"""The renderer without a service: one process, one job after the other, the same threads as a slot has.

Run as a program: `python -m benchmarks.bare SOURCE AUDIO JOBS THREADS`; prints one JSON line a job.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path


class Silent:
    """A progress port that nobody listens to."""

    def report(self, phase: object, done: int, total: int) -> None:
        """Take the report."""

    def check(self) -> None:
        """Never cancelled."""


def main() -> None:
    """Render and report."""
    source, audio, jobs, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    os.environ["OMP_NUM_THREADS"] = threads
    from app.render import registry
    from app.render.contract import RenderJob

    with tempfile.TemporaryDirectory() as folder:
        renderer = registry.create("warp", {"cache_dir": f"{folder}/cache", "cache_bytes": "268435456"})
        renderer.load("cpu")
        for number in range(jobs):
            out = Path(folder) / str(number)
            out.mkdir()
            digest = __import__("hashlib").sha256(source.read_bytes()).hexdigest()
            options = registry.validate_options("warp", {})
            job = RenderJob(source, audio, out, options, source_sha256=digest)
            result = renderer.render(job, Silent())
            row = {"frames": result.frames, "seconds": result.seconds, "stages": dict(result.stages)}
            print(json.dumps({**row, "facts": dict(result.facts)}, default=str), flush=True)


if __name__ == "__main__":
    main()
