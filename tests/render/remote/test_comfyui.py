"""The renderer `comfyui` against a server that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.quality.checks import check_output
from app.render import registry
from app.render.comfyui.listener import ProgressListener
from app.render.comfyui.options import ComfySettings
from app.render.comfyui.renderer import ComfyRenderer
from app.render.comfyui.workflow import READY, load_workflow
from app.render.contract import Cancelled, Phase, RenderJob, RenderResult
from app.retry.taxonomy import CodedError, Failure
from tests.media.makers import write_wav
from tests.render.remote.comfy_server import ComfyServer
from tests.render.remote.conftest import Listener
from tests.render.remote.rough_peer import answer, silent

QUICK = {"poll_s": 0.02, "lost_s": 0.2, "unreachable_s": 0.3, "silence_s": 30.0}
OOM = {
    "node_id": "4", "node_type": "KSampler", "exception_type": "torch.OutOfMemoryError",
    "exception_message": "Allocation on device 0 would exceed allowed memory.\n",
}  # fmt: skip


class Studio:
    """One renderer with its server."""

    def __init__(self, server: ComfyServer, tmp_path: Path, listener: Listener) -> None:
        self.server = server
        self.listener = listener
        self._out = tmp_path / "out"
        self._jobs = 0
        self.build()

    def build(self, **settings: Any) -> None:
        made = registry.create("comfyui", {"url": self.server.url, **QUICK, **settings})
        assert isinstance(made, ComfyRenderer)
        self.renderer = made

    def job(self, source: Path, audio: Path, **options: Any) -> RenderJob:
        self._jobs += 1
        out = self._out / str(self._jobs)
        out.mkdir(parents=True)
        return RenderJob(source, audio, out, registry.validate_options("comfyui", options))

    def render(self, job: RenderJob) -> RenderResult:
        result = self.renderer.render(job, self.listener)
        check_output(result, job)
        assert [path.name for path in job.output_dir.iterdir()] == [result.path.name]
        return result

    def fails(self, job: RenderJob) -> Failure:
        with pytest.raises(CodedError) as caught:
            self.renderer.render(job, self.listener)
        json.dumps(caught.value.failure.detail)
        return caught.value.failure


@pytest.fixture
def studio(tmp_path: Path, video: Path, listener: Listener) -> Iterator[Studio]:
    server = ComfyServer(tmp_path / "comfy", video)
    studio = Studio(server, tmp_path, listener)
    yield studio
    studio.renderer.close()
    server.close()


def test_the_ready_workflow_gives_a_checked_video_without_its_prompt(studio, picture, speech):
    result = studio.render(studio.job(picture, speech))
    assert (result.frames, result.facts["pictures_kept"]) == (30, True)
    assert b"RepeatImageBatch" not in result.path.read_bytes()
    assert any(b"RepeatImageBatch" in path.read_bytes() for path in studio.server.folder.rglob("*.mp4"))
    nodes = studio.server.prompts[0]["prompt"]
    assert (nodes["3"]["inputs"]["amount"], nodes["4"]["inputs"]["fps"]) == (30, 25.0)
    assert nodes["1"]["inputs"]["image"].startswith("greenroom/")
    assert studio.server.history == {}  # nothing stays in its memory


def test_odd_sides_are_made_even_before_they_are_sent(studio, picture, speech):
    studio.render(studio.job(picture, speech))
    sent = next(data for name, data in studio.server.uploads.items() if name.endswith(".png"))
    assert Image.open(BytesIO(sent)).size == (50, 64)


def test_an_equal_task_is_not_served_the_old_file(studio, picture, speech):
    for _ in range(2):
        studio.render(studio.job(picture, speech, seed=7))
    first, second = (order["prompt"]["5"]["inputs"]["filename_prefix"] for order in studio.server.prompts)
    assert first != second
    assert len(list(studio.server.folder.rglob("*.mp4"))) == 2
    assert len(studio.server.uploads) == 2  # equal inputs are kept once


def test_a_renamed_upload_is_used_by_its_new_name(studio, picture, speech):
    studio.render(studio.job(picture, speech))
    name = studio.server.prompts[0]["prompt"]["1"]["inputs"]["image"]
    studio.server.uploads[name] = b"half of it"
    studio.render(studio.job(picture, speech))
    assert studio.server.prompts[1]["prompt"]["1"]["inputs"]["image"] == name.replace(".png", " (1).png")
    assert studio.server.uploads[name] == b"half of it"


def test_an_upload_that_is_sent_again_is_whole(studio, picture, speech):
    studio.server.busy_uploads = 1
    studio.render(studio.job(picture, speech))
    assert studio.server.count("upload") == 3
    for name, content in studio.server.uploads.items():
        assert name.startswith(f"greenroom/{hashlib.sha256(content).hexdigest()[:32]}.")


def test_a_file_that_the_server_finds_too_large_is_told_with_its_words(studio, picture, speech):
    studio.server.largest_upload = 1000
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["status"]) == ("UPSTREAM_REJECTED", 413)
    assert "Maximum request body size 1000 exceeded" in failure.message


@pytest.mark.parametrize(
    ("value", "most", "fraction"),
    [
        ("1", "4", 0.25),
        ("8", "4", 1.0),
        ("-1", "4", 0.0),
        ("0", "0", 0.0),
        ("NaN", "4", 0.0),
        ("1", "NaN", 0.0),
        ("Infinity", "Infinity", 1.0),
        ('"1"', "4", 0.0),
    ],
)
def test_a_progress_that_is_no_number_is_none(value, most, fraction):
    """A node that divides by nothing says NaN, and servers written in Python pass that on."""
    settings = ComfySettings.model_validate({"url": "http://127.0.0.1:8188"})
    listener = ProgressListener(settings, "client", ["7"])
    listener.follow("prompt")
    told = '{"type": "progress", "data": {"prompt_id": "prompt", "node": "7", "value": %s, "max": %s}}'
    listener._hear(told % (value, most))
    listener._hear("[" * 100_000)
    assert (listener.messages, listener.fraction) == (1, fraction)


@pytest.mark.parametrize(("sockets", "states"), [(True, True), (True, False), (False, False)])
def test_progress_comes_by_socket_and_the_end_without_one_too(studio, picture, speech, sockets, states):
    studio.server.sockets, studio.server.states = sockets, states
    studio.server.step_s = 0.05
    studio.render(studio.job(picture, speech))
    seen = [done for phase, done, _ in studio.listener.reports if phase is Phase.RENDER]
    assert seen == sorted(seen)
    assert (len(set(seen)) > 2) == sockets
    assert max(seen) <= 99


def test_the_socket_tells_the_end_before_the_next_look(studio, picture, speech):
    studio.build(poll_s=30.0)
    studio.server.step_s = 0.1
    began = time.monotonic()
    studio.render(studio.job(picture, speech))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OOM, "GPU_OOM"),
        ({"exception_type": "FileNotFoundError", "exception_message": "model x not found"}, "UPSTREAM_REJECTED"),
        ({"exception_type": "RuntimeError", "exception_message": "CUDA error: device-side assert"}, "UPSTREAM_5XX"),
        ({"exception_type": "ValueError", "exception_message": "bad"}, "UPSTREAM_5XX"),
        ({}, "UPSTREAM_5XX"),
    ],
)
def test_a_node_that_fails_is_told_by_its_words(studio, picture, speech, error, code):
    studio.server.error = error
    failure = studio.fails(studio.job(picture, speech))
    assert failure.code == code
    assert error.get("exception_type", "without a word") in failure.message
    assert studio.server.history == {}


def test_a_prompt_that_somebody_else_interrupted_is_told_as_such(studio, picture, speech):
    studio.server.interrupted_by_others = True
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_5XX", "interrupted")


def test_a_node_that_the_server_does_not_have_is_named(studio, tmp_path, picture, speech):
    path = tmp_path / "mine.json"
    nodes = {"7": {"class_type": "TalkingHead", "inputs": {"a": "{image} {audio} {prefix}"}}}
    path.write_text(json.dumps(nodes))
    studio.build(workflow=str(path))
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_REJECTED", "workflow")
    assert "node TalkingHead does not exist.: Node ID '#7'" in failure.message


def test_more_frames_than_the_ready_workflow_can_repeat_are_told_as_such(studio, picture, tmp_path):
    long = write_wav(tmp_path / "long.wav", np.zeros(round(16_000 * 69.0)), rate=16_000)
    failure = studio.fails(studio.job(picture, long, fps=60.0))
    assert failure.code == "UPSTREAM_REJECTED"
    assert "node 3 (RepeatImageBatch): Value 4140 bigger than max of 4096: amount" in failure.message


def test_a_prompt_that_was_taken_without_some_outputs_is_withdrawn(studio, picture, speech):
    errors = [{"type": "value_not_in_list", "message": "Value not in list", "details": "codec: 'x' not in []"}]
    studio.server.node_errors = {"5": {"class_type": "SaveVideo", "errors": errors}}
    studio.server.some_outputs_work = studio.server.held = True
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_REJECTED", "workflow")
    assert (studio.server.pending, studio.server.running, studio.server.history) == ([], "", {})


def test_a_prompt_whose_acceptance_was_lost_is_found_by_its_id_and_not_sent_again(studio, picture, speech):
    studio.server.answers_lost = 1
    studio.render(studio.job(picture, speech))
    assert studio.server.count("prompt") == 1


def test_a_prompt_of_a_server_that_was_killed_is_lost_and_the_next_one_is_served(studio, picture, speech):
    server = studio.server
    server.held = True
    again = threading.Timer(0.0, server.start)

    def killed() -> bool:
        if server.running:
            server.die()
            server.held = False
            again.start()
        return False

    studio.build(unreachable_s=10.0)
    studio.listener.cancel_when = killed
    failure = studio.fails(studio.job(picture, speech))
    again.join()
    assert failure.code == "TASK_LOST"
    studio.listener.cancel_when = lambda: False
    studio.render(studio.job(picture, speech))


def test_a_workflow_that_is_not_taken_names_its_nodes(studio, picture, speech):
    errors = [{"type": "value_not_in_list", "message": "Value not in list", "details": "ckpt_name: 'x' not in []"}]
    studio.server.node_errors = {"4": {"class_type": "CheckpointLoaderSimple", "errors": errors}}
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_REJECTED", "workflow")
    assert "node 4 (CheckpointLoaderSimple): Value not in list: ckpt_name" in failure.message
    assert studio.server.count("prompt") == 1


def test_a_prompt_in_neither_history_nor_queue_is_lost_after_a_minute_and_not_before(studio, picture, speech):  # R0.3
    studio.server.forgets = True
    failure = studio.fails(studio.job(picture, speech))
    assert failure.code == "TASK_LOST"
    assert failure.detail["missing_s"] >= 0.2
    assert registry.capabilities("comfyui").settings.model_fields["lost_s"].default == 60.0


def test_a_prompt_that_waits_for_others_is_neither_lost_nor_silent(studio, picture, speech):
    studio.build(silence_s=0.2)
    studio.server.queue_of_another(nodes=30)
    studio.server.step_s = 0.01
    studio.render(studio.job(picture, speech))


def test_a_node_that_is_silent_for_too_long_fails_and_is_interrupted(studio, picture, speech):
    studio.build(silence_s=0.4)
    studio.server.held = True
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_TIMEOUT", "silent")
    assert len(studio.server.interrupts) == 1


def test_a_cancel_interrupts_the_running_prompt_by_its_id(studio, picture, speech):
    server = studio.server
    server.held = True
    studio.listener.cancel_when = lambda: bool(server.running)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        studio.renderer.render(studio.job(picture, speech), studio.listener)
    assert time.monotonic() - began < 5
    assert [set(asked) for asked in server.interrupts] == [{"prompt_id"}]
    assert (server.running, server.history) == ("", {})  # nor does its record stay


def test_a_cancel_that_is_heard_twice_still_takes_the_prompt_back(studio, picture, speech, monkeypatch):
    server, listener = studio.server, studio.listener
    server.held, server.answer_s = True, 0.3  # longer than between two looks at the cancel flag
    heard: list[Phase] = []
    tell = listener.report

    def report(phase: Phase, done: int, total: int) -> None:
        if phase is Phase.RENDER and server.running:
            heard.append(phase)
        tell(phase, done, total)

    monkeypatch.setattr(listener, "report", report)
    listener.cancel_when = lambda: bool(heard)
    with pytest.raises(Cancelled):
        studio.renderer.render(studio.job(picture, speech), listener)
    assert (len(server.interrupts), server.running) == (1, "")


def test_a_cancel_takes_a_waiting_prompt_from_the_queue_and_touches_no_other(studio, picture, speech):
    server = studio.server
    server.held = True
    other = server.queue_of_another()
    studio.listener.cancel_when = lambda: server.running == other and len(server.pending) == 1
    with pytest.raises(Cancelled):
        studio.renderer.render(studio.job(picture, speech), studio.listener)
    assert (server.pending, server.running, server.interrupts) == ([], other, [])


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "no video"),
        ({"5": {"images": [{"filename": "a.png", "type": "output"}]}}, "no video"),
        ({"5": {"images": [{"filename": "a.mp4"}]}, "6": {"gifs": [{"filename": "b.mp4"}]}}, "2 videos"),
    ],
)
def test_a_workflow_without_one_clear_result_says_what_to_do(studio, picture, speech, outputs, words):
    studio.server.outputs = outputs
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["reason"]) == ("OUTPUT_INVALID", "no_result")
    assert words in failure.message
    assert "output_node" in failure.hint


def test_a_workflow_of_ones_own_gets_its_placeholders_with_their_types(studio, tmp_path, video, speech):
    path = tmp_path / "mine.json"
    nodes = {
        "a": {"class_type": "LoadVideo", "inputs": {"file": "{video}"}},
        "b": {"class_type": "LoadAudio", "inputs": {"audio": "{audio}", "note": "at {fps} for {seconds} s"}},
        "c": {"class_type": "SaveVideo", "inputs": {"filename_prefix": "{prefix}", "seed": "{seed}", "list": ["a", 0]}},
    }
    path.write_text(json.dumps(nodes))
    studio.build(workflow=str(path))
    studio.render(studio.job(video, speech, seed=11))
    sent = studio.server.prompts[0]["prompt"]
    assert (sent["c"]["inputs"]["seed"], sent["c"]["inputs"]["list"]) == (11, ["a", 0])
    assert sent["b"]["inputs"]["note"] == "at 25.0 for 1.2 s"
    assert sent["a"]["inputs"]["file"].endswith(".mp4")


def test_a_source_that_the_workflow_does_not_take_is_told_before_anything_is_sent(studio, video, speech):
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, studio.server.calls) == ("UPSTREAM_REJECTED", [])


def test_a_server_that_does_not_answer_is_told_with_the_call(studio, rough, picture, speech):
    peer = rough(silent(2))
    studio.build(url=peer.url, header_s=0.1, call_s=1.0, transfer_s=1.0)
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["path"]) == ("UPSTREAM_TIMEOUT", "/upload/image")


@pytest.mark.parametrize("body", [b"{}", b'{"name": 3}', b'{"name": ""}'])
def test_an_upload_without_a_name_is_a_server_error(studio, rough, picture, speech, body):
    peer = rough(answer("200 OK", body))
    studio.build(url=peer.url)
    failure = studio.fails(studio.job(picture, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_5XX", "unexpected")


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"nodes": [], "links": []}',
        '{"1": {"class_type": "x", "inputs": {"a": "{audio} {image} {prefix} {colour}"}}}',
        '{"1": {"class_type": "x", "inputs": {"a": "{image} {prefix}"}}}',
        '{"1": {"class_type": "x", "inputs": {"a": "{audio} {image}"}}}',
        '{"1": {"class_type": "x", "inputs": {"a": "{audio} {prefix}"}}}',
    ],
)
def test_a_workflow_that_cannot_work_is_refused_with_the_configuration(tmp_path, text):
    path = tmp_path / "workflow.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"workflow\.json"):
        registry.capabilities("comfyui").settings.model_validate({"url": "http://127.0.0.1:1", "workflow": str(path)})


def test_the_ready_workflow_is_made_of_core_nodes():
    kinds = {node["class_type"] for node in load_workflow(READY).values()}
    assert kinds == {"LoadImage", "LoadAudio", "RepeatImageBatch", "CreateVideo", "SaveVideo"}
