"""The addresses of other servers in a real service: our own client of Duix servers is served, also over a restart."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from app.quality.checks import check_output
from app.render import registry
from app.render.contract import RenderJob
from app.render.duix.renderer import DuixRenderer
from tests.e2e.conftest import Service, until

LINE = """
[[tiers]]
name = "here"
renderer = "rehearsal"
default_options = { fault = "none" }
"""


class Listener:
    """Never cancels."""

    def report(self, *_: Any) -> None: ...

    def check(self) -> None: ...

    def called(self, *_: Any) -> None: ...


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "face2face" / "temp").mkdir(parents=True)
    return tmp_path / "face2face"


@pytest.fixture
def start(serve, tmp_path, shared):
    (tmp_path / "out").mkdir()
    config = tmp_path / "greenroom.toml"
    config.write_text(LINE)

    def begin() -> Service:
        return serve(
            "--config",
            str(config),
            GREENROOM_REHEARSALS="1",
            GREENROOM_CONFIDENCE_THRESHOLD="0",
            GREENROOM_DROP_IN_DUIX_DIR=str(shared),
            GREENROOM_DROP_IN_SAVE_ROOTS=str(tmp_path / "out"),
        ).until_ready()

    return begin


def test_our_renderer_for_duix_servers_renders_here(start, shared, portrait, speech, tmp_path):
    service = start()
    settings = {"url": str(service.http.base_url), "shared_dir": str(shared), "poll_s": 0.05, "cache_dir": ""}
    renderer = registry.create("duix", settings)
    assert isinstance(renderer, DuixRenderer)
    renderer.load("cpu")
    (tmp_path / "made").mkdir()
    job = RenderJob(portrait, speech(0.6), tmp_path / "made", registry.validate_options("duix", {}))
    check_output(renderer.render(job, Listener()), job)
    renderer.close()
    assert list((shared / "temp").iterdir()) == []


def test_a_code_and_its_video_outlive_a_killed_service(start, shared, portrait, speech):
    shutil.copyfile(speech(0.6), shared / "temp" / "speech.wav")
    shutil.copyfile(portrait, shared / "temp" / "face.jpg")
    order = {"code": "order-7", "audio_url": "speech.wav", "video_url": "face.jpg", "chaofen": 0, "pn": 1}

    def query(service: Service) -> dict[str, Any]:
        return dict(service.http.get("/easy/query", params={"code": "order-7"}).json()["data"])

    service = start()
    assert service.http.post("/easy/submit", json=order).json()["code"] == 10000
    service.stop(signal.SIGKILL)
    service = start()
    done = until(lambda: (data := query(service))["status"] == 2 and data, "the end")
    assert done["result"] == "/order-7-r.mp4"
    service.stop(signal.SIGKILL)
    (shared / "temp" / "order-7-r.mp4").unlink()
    service = start()
    assert query(service) == done
    assert (shared / "temp" / "order-7-r.mp4").stat().st_size > 1000
    assert service.http.post("/easy/submit", json=order).json()["code"] == 10000
    assert len(service.http.get("/tasks").json()["tasks"]) == 1


def test_a_blocking_request_is_served(start, shared, portrait, speech, tmp_path):
    service = start()
    shutil.copyfile(portrait, shared / "face.jpg")
    shutil.copyfile(speech(0.6), shared / "speech.wav")
    order = {
        "audio_path": str(shared / "speech.wav"),
        "video_path": str(shared / "face.jpg"),
        "save_path": str(tmp_path / "out" / "a.mp4"),
    }
    answer = service.http.post("/human/generate", json=order)
    assert (answer.status_code, answer.json()["code"]) == (200, 200), answer.text
    assert (tmp_path / "out" / "a.mp4").stat().st_size > 1000


def test_a_folder_of_callers_must_lie_apart_from_the_data(serve, tmp_path):
    with pytest.raises(AssertionError, match="neither hold `data_dir` nor lie in it"):
        serve(GREENROOM_DROP_IN_SAVE_ROOTS=str(tmp_path))
