"""docs/command.md names every setting and every preset with its values and options, and its examples are valid."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from app.render.command.presets import PRESETS
from app.render.command.settings import PATHS, CommandSettings
from app.tiers.settings import TierSettings

PAGE = (Path(__file__).parents[2] / "docs" / "command.md").read_text()


def test_every_setting_has_its_row():
    settings, _, presets = PAGE.partition("## Presets")
    assert set(re.findall(r"^\| `(\w+)` \|", settings, re.MULTILINE)) == set(CommandSettings.model_fields)
    assert set(re.findall(r"^\| `(\w+)` \|", presets, re.MULTILINE)) == set(PRESETS)


def test_every_placeholder_is_named():
    assert set(re.findall(r"`\{([a-z_]+)\}`", PAGE)) == PATHS


def test_the_presets_rows_name_values_and_options():
    for name, preset in PRESETS.items():
        [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        for word in (*preset["values"], *preset.get("options", {})):
            assert f"`{word}`" in row, (name, word)


def test_the_examples_are_valid():
    examples = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    tiers = [TierSettings(**tier) for text in examples for tier in tomllib.loads(text)["tiers"]]
    assert [tier.name for tier in tiers] == ["bench", "studio"]
