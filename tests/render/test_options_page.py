"""docs/options.md names every option of the built-in renderer, and its default."""

from __future__ import annotations

import json
import re
from pathlib import Path

from app.render.output_options import QUALITIES
from app.render.warp.options import WarpOptions

PAGE = Path(__file__).parents[2] / "docs" / "options.md"


def test_the_page_names_every_option_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| ([^|]+) \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE)
    documented = {name: json.loads(default) for name, default in rows}
    assert documented == WarpOptions().model_dump(mode="json")


def test_the_page_tells_what_each_quality_means() -> None:
    factors = [str(factor) for factor, _ in QUALITIES.values()]
    assert f"constant rate factor {factors[0]}, {factors[1]} or {factors[2]}" in PAGE.read_text()
