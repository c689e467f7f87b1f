"""Renderers of other packages: docs/renderers.md as written, in a real service, beside plug-ins that are broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from app.media.video_in import VideoSource
from app.render import registry
from tests.e2e.conftest import Service, until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "renderers.md").read_text()
PYTHON = re.findall(r"^`(talking_card/\w+\.py)`.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
PROJECT, TIER = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def install(site: Path, package: str, points: dict[str, str], files: dict[str, str]) -> None:
    """What an installer leaves of a package: its files, its metadata and its entry points."""
    for name, text in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[greenroom.renderers]", *lines, ""]))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    project = tomllib.loads(PROJECT)["project"]
    install(folder, project["name"], project["entry-points"]["greenroom.renderers"], dict(PYTHON))
    return folder


def states(service: Service) -> list[str]:
    return [slot["state"] for slot in service.http.get("/queue").json()["slots"]]


def asked(site: Path, statement: str) -> str:
    script = f"from app.render import registry; {statement}"
    environment = {**os.environ, "PYTHONPATH": f"{site}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_documents_renderer_has_under_fifty_lines():
    assert [name for name, _ in PYTHON] == ["talking_card/__init__.py", "talking_card/renderer.py"]
    assert sum(len(text.splitlines()) for _, text in PYTHON) < 50


def test_the_documents_renderer_serves_and_a_broken_one_beside_it_stops_nothing(
    serve, site, tmp_path, portrait, speech
):
    install(
        site, "broken-one", {"broken": "broken_one:PLUGIN"}, {"broken_one.py": "raise RuntimeError('no licence')\n"}
    )
    file = tmp_path / "greenroom.toml"
    file.write_text('[[tiers]]\nname = "first"\nrenderer = "broken"\nmodel = "any setting"\n' + TIER)
    service = serve("--config", str(file), PYTHONPATH=f"{site}:{ROOT}").until_ready()
    first, card = service.http.get("/tiers").json()["tiers"]
    assert "the plug-in broken of the package broken-one cannot be imported: RuntimeError: no licence" in str(first)
    assert card["name"] == "card"
    until(
        lambda: [s["state"] for s in service.http.get("/queue").json()["slots"]] == ["idle"], "the slot of the plug-in"
    )
    task = service.until_ended(service.post(portrait, speech(0.5), options={"side": 128})["id"])
    assert (task["status"], task["served_by"], task["degraded"]) == ("SUCCEEDED", "card", True)
    video = tmp_path / "video.mp4"
    video.write_bytes(service.http.get(f"/tasks/{task['id']}/output").content)
    with VideoSource(video) as source:
        assert (source.width, source.height) == (128, 128)
    assert [r["renderer"] for r in service.records() if r.get("event") == "plugin_broken"] == ["broken"]
    refused = service.http.post(
        "/generate", json={"source": {}, "audio": {}, "renderer": "card", "options": {"side": 1}}
    )
    assert refused.status_code == 422


@pytest.mark.parametrize(
    ("name", "value", "text", "reason"),
    [
        ("warp", "mine:PLUGIN", "", "has the name of a renderer that Greenroom has itself"),
        ("Loud", "mine:PLUGIN", "", "a name that is not of lower case letters"),
        ("mine", "mine:PLUGIN", "import nothing_of_the_kind\n", "ModuleNotFoundError"),
        ("mine", "mine:PLUGIN", "", "AttributeError"),
        ("mine", "mine:PLUGIN", "PLUGIN = 3\n", "is not a Plugin"),
        ("mine", "mine:PLUGIN", "import sys\nsys.exit(1)\n", "SystemExit"),
        ("mine", "mine:PLUGIN", "import numpy\nfrom talking_card import PLUGIN\n", "imports numpy beside"),
        ("talking-card", "mine:PLUGIN", "from talking_card import PLUGIN\n", "more than one package"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_named_with_its_reason(site, name, value, text, reason):
    install(site, "mine", {name: value}, {"mine.py": text})
    own = name if name in registry.BUILT_IN else "still"  # which loads no torch
    told, module = asked(
        site, f"print(registry.broken_plugins()[{name!r}]); print(type(registry.create({own!r})).__module__)"
    ).splitlines()
    assert reason in told
    assert module == f"app.render.{own}.renderer"


def test_plug_ins_are_found_without_a_framework(site):
    found = asked(
        site, "import sys; print('talking-card' in registry.names(), {'torch', 'numpy', 'av'} & set(sys.modules))"
    )
    assert found == "True set()"


def test_a_plug_in_that_cannot_tell_whether_it_is_there_is_absent(site):
    text = (
        "from dataclasses import replace\nfrom talking_card import PLUGIN as CARD\n"
        "PLUGIN = replace(CARD, why_absent=lambda settings: 1 / 0)\n"
    )
    install(site, "mine", {"mine": "mine:PLUGIN"}, {"mine.py": text})
    assert "ZeroDivisionError" in asked(site, "print(registry.why_absent('mine', {}))")
