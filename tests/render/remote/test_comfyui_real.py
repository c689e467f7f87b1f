"""The renderer `comfyui` against a ComfyUI that really runs; left out unless there is one (docs/tiers.md tells how).

GREENROOM_COMFYUI_URL names a server that runs, which nobody else should use meanwhile. GREENROOM_COMFYUI_COMMAND starts
one instead (`--port N` is added), and lets it be killed, too. Nodes of its core are enough, and a CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.media.boxes import top_level_boxes
from app.media.image import write_even_png
from app.quality.checks import check_output
from app.render import registry
from app.render.contract import Cancelled, Phase, RenderJob, RenderResult
from app.render.remote import renderer as remote
from app.retry.taxonomy import CodedError, Failure
from tests.media.makers import write_wav
from tests.render.remote.conftest import Listener

URL, COMMAND = os.environ.get("GREENROOM_COMFYUI_URL", ""), os.environ.get("GREENROOM_COMFYUI_COMMAND", "")
pytestmark = [
    pytest.mark.skipif(not URL and not COMMAND, reason="neither GREENROOM_COMFYUI_URL nor _COMMAND names a ComfyUI"),
    pytest.mark.timeout(600),
]
Nodes = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def blurs(first: str, count: int) -> Nodes:
    """A chain of nodes that take a tenth of a second each: from node `first`, the last one is named "blurred"."""
    names = [first, *(f"blur {number}" for number in range(count - 1)), "blurred"]
    return {after: node("ImageBlur", image=[before, 0], blur_radius=5, sigma=2.0) for before, after in pairwise(names)}


def large(first: str, count: int) -> Nodes:
    """Such a chain that is long enough for all that shall happen meanwhile."""
    scaled = node("ImageScale", image=[first, 0], upscale_method="area", width=1024, height=1024, crop="disabled")
    return {"large": scaled, "four": node("RepeatImageBatch", image=["large", 0], amount=4), **blurs("four", count)}


def saved(images: str) -> Nodes:
    return {
        "voice": node("LoadAudio", audio="{audio}"),
        "video": node("CreateVideo", images=[images, 0], fps="{fps}", audio=["voice", 0]),
        "saved": node("SaveVideo", video=["video", 0], filename_prefix="{prefix}", format="mp4", codec="h264"),
    }


class Comfy:
    """The real one."""

    def __init__(self) -> None:
        self.url = URL
        self._process: subprocess.Popen[bytes] | None = None
        if not URL:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._port = free.getsockname()[1]
            self.url = f"http://127.0.0.1:{self._port}"
            self.start()
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def start(self) -> None:
        self._process = subprocess.Popen([*shlex.split(COMMAND), "--port", str(self._port)], start_new_session=True)
        until(self._answers, "ComfyUI to answer", 300)

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, "ComfyUI ended"
        try:
            return httpx.get(self.url + "/system_stats", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def queue(self) -> tuple[list[str], list[str]]:
        """The ids of what runs and of what waits."""
        told = self.http.get("/queue").json()
        return [item[1] for item in told["queue_running"]], [item[1] for item in told["queue_pending"]]

    def put(self, nodes: Nodes) -> str:
        """Queue somebody else's prompt."""
        answer = self.http.post("/prompt", json={"prompt": nodes})
        assert answer.is_success, answer.text
        return answer.json()["prompt_id"]

    def put_long(self) -> str:
        """A prompt of many nodes, different each time."""
        image = node("EmptyImage", width=1024, height=1024, batch_size=4, color=random.randrange(2**24))
        return self.put({"made": image, **blurs("made", 60), "shown": node("PreviewImage", images=["blurred", 0])})

    def ended(self, prompt: str) -> dict[str, Any]:
        """How a prompt ended, once it has."""
        until(lambda: prompt in self.http.get(f"/history/{prompt}").json(), "a prompt to end")
        return self.http.get(f"/history/{prompt}").json()[prompt]["status"]


def until(holds: Callable[[], bool], what: str, limit_s: float = 120) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def comfy() -> Iterator[Comfy]:
    made = Comfy()
    yield made
    made.http.close()
    made.kill()


class Studio:
    """A renderer of that server's."""

    def __init__(self, comfy: Comfy, folder: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
        self.comfy, self.listener, self.folder = comfy, listener, folder
        self.received: list[Path] = []
        """What the server sent, before it was taken over."""
        self._jobs = 0
        take_over = remote.adopt

        def keep(raw: Path, *more: Any) -> Any:
            self.received.append(folder / f"received {len(self.received)}.mp4")
            self.received[-1].write_bytes(raw.read_bytes())
            return take_over(raw, *more)

        monkeypatch.setattr(remote, "adopt", keep)
        self.build()

    def build(self, nodes: Nodes | None = None, **settings: Any) -> None:
        if nodes is not None:
            path = self.folder / "workflow.json"
            path.write_text(json.dumps(nodes))
            settings["workflow"] = str(path)
        self.renderer = registry.create("comfyui", {"url": self.comfy.url, "poll_s": 0.2, **settings})

    def job(self, source: Path, audio: Path, **options: Any) -> RenderJob:
        self._jobs += 1
        out = self.folder / f"out {self._jobs}"
        out.mkdir()
        return RenderJob(source, audio, out, registry.validate_options("comfyui", options))

    def render(self, source: Path, audio: Path, **options: Any) -> RenderResult:
        job = self.job(source, audio, **options)
        result = self.renderer.render(job, self.listener)
        check_output(result, job)
        assert [path.name for path in job.output_dir.iterdir()] == [result.path.name]
        assert self.comfy.http.get(f"/history/{result.facts['remote_task']}").json() == {}
        return result

    def fails(self, source: Path, audio: Path, **options: Any) -> Failure:
        before = set(self.comfy.http.get("/history").json())
        with pytest.raises(CodedError) as caught:
            self.renderer.render(self.job(source, audio, **options), self.listener)
        assert self.comfy.queue() == ([], [])
        assert set(self.comfy.http.get("/history").json()) <= before
        return caught.value.failure


@pytest.fixture
def studio(comfy: Comfy, tmp_path: Path, listener: Listener, monkeypatch) -> Iterator[Studio]:
    made = Studio(comfy, tmp_path, listener, monkeypatch)
    yield made
    made.renderer.close()
    comfy.http.post("/queue", json={"clear": True})
    comfy.http.post("/interrupt")
    until(lambda: comfy.queue() == ([], []), "the queue to be empty")


def test_the_ready_workflow_gives_a_checked_video_without_its_prompt(studio, picture, speech):
    result = studio.render(picture, speech)
    assert (result.frames, result.width, result.height) == (30, 50, 64)  # sent with even sides
    assert result.facts["pictures_kept"]
    sent, ours = studio.received[0], result.path
    assert b"RepeatImageBatch" in sent.read_bytes()
    assert b"RepeatImageBatch" not in ours.read_bytes()
    kinds = [[box.kind for box in top_level_boxes(path)] for path in (sent, ours)]
    assert [names.index("moov") < names.index("mdat") for names in kinds] == [False, True]


def test_an_equal_task_gets_a_file_of_its_own(studio, picture, speech):
    names = set()
    for _ in range(2):
        studio.render(picture, speech, seed=7)
        names.add(hashlib.sha256(studio.received[-1].read_bytes()).hexdigest())  # each tells its own prefix
    assert len(names) == 2


def test_an_upload_that_is_there_with_other_content_is_used_by_its_new_name(studio, picture, speech, tmp_path):
    write_even_png(picture, tmp_path / "sent.png", 1024)
    name = hashlib.sha256((tmp_path / "sent.png").read_bytes()).hexdigest()[:32] + ".png"
    sent = {"image": (name, random.randbytes(100), "application/octet-stream")}
    place = {"type": "input", "subfolder": "greenroom", "overwrite": "true"}
    assert studio.comfy.http.post("/upload/image", files=sent, data=place).json()["name"] == name
    studio.render(picture, speech)
    assert f"greenroom/{name.removesuffix('.png')} (1).png".encode() in studio.received[0].read_bytes()


def test_a_template_goes_through_a_workflow_for_videos(studio, video, speech):
    nodes = {
        "template": node("LoadVideo", file="{video}"),
        "parts": node("GetVideoComponents", video=["template", 0]),
        **saved("parts"),
    }
    studio.build(nodes, sources=["video"])
    assert studio.render(video, speech).frames == 30


def test_progress_comes_by_the_socket(studio, picture, speech):
    studio.build(
        {"shown": node("LoadImage", image="{image}"), **repeated("shown"), **blurs("many", 20), **saved("blurred")}
    )
    studio.render(picture, speech)
    seen = [done for phase, done, _ in studio.listener.reports if phase is Phase.RENDER]
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


def repeated(images: str) -> Nodes:
    return {"many": node("RepeatImageBatch", image=[images, 0], amount="{frames}")}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"x": node("TalkingHead", image=["many", 0])}, "node TalkingHead does not exist"),
        ({"many": node("RepeatImageBatch", image=["shown", 0], amount=5000)}, "bigger than max of 4096: amount"),
        ({"shown": node("LoadImage", image="nowhere.png")}, "node shown (LoadImage): Custom validation failed"),
        ({"x": node("VAELoader", vae_name="none.safetensors"), "y": node("PreviewImage", images=["x", 0])}, "node"),
    ],
)
def test_a_workflow_that_is_not_taken_names_its_nodes(studio, picture, speech, wrong, words):
    nodes = {"first": node("LoadImage", image="{image}"), "shown": node("LoadImage", image="{image}")}
    studio.build(nodes | repeated("shown") | saved("many") | wrong)
    failure = studio.fails(picture, speech)
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_REJECTED", "workflow")
    assert words in failure.message


def test_a_node_that_fails_is_told_by_its_words(studio, picture, speech):
    studio.build(
        {"shown": node("LoadImage", image="{audio}"), **saved("shown"), "x": node("LoadImage", image="{image}")}
    )
    failure = studio.fails(picture, speech)
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_5XX", "execution_error")
    assert "failed at node shown (LoadImage): PIL.UnidentifiedImageError" in failure.message


def test_odd_sides_fail_in_the_servers_encoder_which_is_why_none_are_sent(studio, picture, speech):
    scaled = node("ImageScale", image=["shown", 0], upscale_method="area", width=65, height=51, crop="disabled")
    studio.build({"shown": node("LoadImage", image="{image}"), "odd": scaled, **saved("odd")})
    failure = studio.fails(picture, speech)
    assert (failure.code, failure.detail["node"]) == ("UPSTREAM_5XX", "SaveVideo")


def test_a_cancel_takes_a_waiting_prompt_from_the_queue_and_touches_no_other(studio, picture, speech):
    other = studio.comfy.put_long()
    studio.listener.cancel_when = lambda: len(studio.comfy.queue()[1]) == 1
    with pytest.raises(Cancelled):
        studio.renderer.render(studio.job(picture, speech), studio.listener)
    assert studio.comfy.queue() == ([other], [])


def test_a_cancel_interrupts_the_running_prompt_and_touches_no_other(studio, picture, speech, tmp_path):
    studio.build({"shown": node("LoadImage", image="{image}"), **large("shown", 60), **saved("blurred")})
    others: list[str] = []
    before = set(studio.comfy.http.get("/history").json())

    def runs() -> bool:
        running, waiting = studio.comfy.queue()
        if running and not others:
            image = node("EmptyImage", width=64, height=64, batch_size=1, color=random.randrange(2**24))
            others.append(studio.comfy.put({"made": image, "shown": node("PreviewImage", images=["made", 0])}))
        return bool(running and waiting)

    studio.listener.cancel_when = runs
    began = time.monotonic()
    with pytest.raises(Cancelled):
        studio.renderer.render(studio.job(picture, speech), studio.listener)
    assert studio.comfy.ended(others[0])["status_str"] == "success"
    assert time.monotonic() - began < 60
    assert set(studio.comfy.http.get("/history").json()) == before | {others[0]}


def test_a_prompt_that_somebody_else_interrupts_is_told_as_such(studio, picture, speech):
    studio.build({"shown": node("LoadImage", image="{image}"), **large("shown", 60), **saved("blurred")})

    def interrupt() -> bool:
        if studio.comfy.queue()[0]:
            studio.comfy.http.post("/interrupt")
        return False

    studio.listener.cancel_when = interrupt
    failure = studio.fails(picture, speech)
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_5XX", "interrupted")


def test_a_prompt_that_was_taken_without_some_outputs_is_withdrawn(studio, picture, speech):
    nodes = {"shown": node("LoadImage", image="{image}"), **large("shown", 60), **saved("blurred")}
    studio.build(nodes | {"other": node("PreviewImage", images=["nothing", 0])})
    failure = studio.fails(picture, speech)
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_REJECTED", "workflow")
    assert "node other (PreviewImage)" in failure.message


def test_speech_of_a_minute_and_more_frames_than_can_be_repeated(studio, picture, tmp_path):
    minute = write_wav(tmp_path / "minute.wav", np.zeros(16_000 * 61, np.int16))
    assert studio.render(picture, minute).frames == 1525
    longer = write_wav(tmp_path / "longer.wav", np.zeros(16_000 * 165, np.int16))
    failure = studio.fails(picture, longer)
    assert "node 3 (RepeatImageBatch): Value 4125 bigger than max of 4096" in failure.message


@pytest.mark.skipif(not COMMAND, reason="only a server that was started here may be killed")
def test_a_server_that_is_killed_in_the_middle_loses_the_prompt_and_serves_the_next_one(studio, picture, speech):
    nodes = {"shown": node("LoadImage", image="{image}"), **large("shown", 60), **saved("blurred")}
    studio.build(nodes, unreachable_s=300.0, lost_s=2.0)
    killed: list[float] = []

    def kill() -> bool:
        if not killed and studio.comfy.queue()[0]:
            studio.comfy.kill()
            killed.append(time.monotonic())
            studio.comfy.start()
        return False

    studio.listener.cancel_when = kill
    failure = studio.fails(picture, speech)
    assert (failure.code, bool(killed)) == ("TASK_LOST", True)
    studio.build()
    studio.render(picture, speech)
