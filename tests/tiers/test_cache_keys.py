"""Which results may answer a request: the keys of its tiers (R2.7)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.render import registry
from app.render.version import files_of, version_of
from app.tiers.cache_key import Contents
from app.tiers.settings import TierSettings
from app.tiers.tiers import Tiers

INPUTS = Contents("a" * 64, "b" * 64)


def keys(*tiers: dict[str, Any], options: dict[str, Any] | None = None, inputs: Contents = INPUTS) -> tuple[str, ...]:
    settings = [TierSettings(**({"renderer": "warp"} | tier)) for tier in tiers]
    return Tiers(settings).cache_keys([tier.name for tier in settings], options or {}, inputs)


def test_a_key_is_a_sha256_and_the_same_each_time() -> None:
    [key] = keys({"name": "one"})
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")
    assert keys({"name": "one"}) == (key,)


@pytest.mark.parametrize("options", [{"strength": 1.0}, {"strength": 1}, {"seed": None, "quality": "standard"}])
def test_options_are_equal_after_defaults(options: dict[str, Any]) -> None:
    assert keys({"name": "one"}, options=options) == keys({"name": "one"})


def test_options_are_equal_after_the_tiers_filters() -> None:
    tier = {
        "name": "one", "drop_options": ["seed"], "rename_options": {"power": "strength"},
        "map_options": {"power": {"full": 1.0}},
    }  # fmt: skip
    assert keys(tier, options={"seed": 7, "power": "full"}) == keys({"name": "one"})


@pytest.mark.parametrize(
    "other",
    [
        {"tiers": ({"name": "one"},), "inputs": Contents("a" * 64, "c" * 64)},
        {"tiers": ({"name": "one"},), "inputs": Contents("b" * 64, "a" * 64)},
        {"tiers": ({"name": "one"},), "options": {"strength": 0.5}},
        {"tiers": ({"name": "one"},), "options": {"seed": 7}},
        {"tiers": ({"name": "one", "renderer": "still"},)},
        {"tiers": ({"name": "one", "cache_class": "mine"},)},
        {"tiers": ({"name": "one", "degraded": True},)},
    ],
    ids=str,
)
def test_what_makes_another_result_makes_another_key(other: dict[str, Any]) -> None:
    tiers = other.pop("tiers")
    assert not set(keys({"name": "one"})) & set(keys(*tiers, **other))


def test_tiers_of_one_renderer_share_their_results_unless_their_classes_differ() -> None:
    assert len(keys({"name": "one"}, {"name": "two"})) == 1
    assert len(keys({"name": "one"}, {"name": "two", "cache_class": "mine"})) == 2


def test_own_settings_of_a_renderer_count_unless_a_class_says_what_belongs_together(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"x")
    (tmp_path / "here").mkdir()
    other = {"name": "two", "renderer": "wav2lip", "checkpoint": str(tmp_path / "here" / ".." / "weights.pth")}
    one = {"name": "one", "renderer": "wav2lip", "checkpoint": str(weights)}
    assert len(keys(one, other)) == 2
    assert len(keys(one | {"cache_class": "same"}, other | {"cache_class": "same"})) == 1


def test_degraded_tiers_go_last_whatever_their_place() -> None:
    best, last = {"name": "one"}, {"name": "two", "degraded": True}
    assert keys(last, best) == keys(best, last)
    assert keys(last, best)[0] == keys(best)[0]


def test_rehearsals_are_not_cached_unless_their_tier_names_a_class() -> None:
    rehearsal = {"name": "one", "renderer": "rehearsal"}
    assert keys(rehearsal) == ()
    assert len(keys(rehearsal | {"cache_class": "rehearsed"})) == 1


def test_other_weights_are_another_version(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    settings = {"checkpoint": str(weights)}
    before = registry.version("wav2lip", settings)
    assert registry.version("wav2lip", settings) == before
    os.utime(weights, ns=(1, 1))
    assert registry.version("wav2lip", settings) != before
    assert registry.version("warp", settings) == registry.version("warp", {})


def test_other_code_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_renderer"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "options.py").write_text("A = 1")
    (tmp_path / "single.py").write_text("B = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = version_of("some_renderer.options"), version_of("single")
    assert len(before[0]) == 32
    (package / "model.py").write_text("C = 1")
    assert version_of("some_renderer.options") != before[0]
    assert version_of("single") == before[1]
    (tmp_path / "single.py").write_text("B = 2")
    assert version_of("single") != before[1]


@pytest.mark.parametrize("name", ["warp", "wav2lip", "still", "command", "duix", "comfyui"])
def test_a_version_covers_all_that_a_renderer_is_made_of(name: str) -> None:
    entry = registry.BUILT_IN[name]
    code = f"import sys, {entry.factory.partition(':')[0]}; print(*(m.__file__ for m in list(sys.modules.values())"
    code += " if m.__name__.startswith(('app.render.', 'app.face.', 'app.speech.', 'app.media.'))), sep=chr(10))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    counted = {str(path) for path in files_of(entry.capabilities.partition(":")[0])}
    assert len(loaded) > 5
    assert set(loaded) <= counted
