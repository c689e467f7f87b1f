"""The code of docs/clients.md does what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import *  # noqa: F403

TEXT = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(("index", "video"), [(0, "talking.mp4"), (1, "derived.mp4"), (2, "speech.mp4")])
def test_an_example_makes_a_video(
    serve: Any, tmp_path: Path, portrait: Path, speech: Any, index: int, video: str
) -> None:
    service = serve().until_ready()
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(portrait, folder / "portrait.png")
    shutil.copy(speech(0.5), folder / "speech.wav")
    code = EXAMPLES[index].replace("http://127.0.0.1:8000", str(service.http.base_url))
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (folder / video).stat().st_size > 1000
