"""Measuring a benchmark's parts one by one, and keeping what was measured of the others before."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.service import dump


def measure_parts(parts: Mapping[str, Callable[[Path], Any]], wanted: Sequence[str], path: Path) -> None:
    """Measure the `wanted` parts, each in an empty folder; print and save them in `path` with the load average."""
    saved: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results = {name: saved[name] for name in parts if name in saved}
    for name in wanted:
        before = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            figures = parts[name](Path(folder))
        load = {"before": round(before, 1), "after": round(os.getloadavg()[0], 1)}
        results[name] = {"figures": figures, "load_average": load}
        print(json.dumps({name: results[name]}, indent=2), flush=True)
        dump(results, path)
