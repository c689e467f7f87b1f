"""The canary: a render of under half a second that proves that a process can do its work on its device.

`face.jpg` is cut from the sample portrait (NASA, public domain), `speech.wav` from the sample speech (LibriVox, public
domain); see samples/README.md for their sources.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.render.contract import RenderJob

_HERE = Path(__file__).parent


def canary_job(output_dir: Path, options: dict[str, Any]) -> RenderJob:
    """The canary for a renderer with these (default) options."""
    return RenderJob(source=_HERE / "face.jpg", audio=_HERE / "speech.wav", output_dir=output_dir, options=options)
