"""The renderer `duix` against a server that has all quirks of the real one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.quality.checks import check_output
from app.render import registry
from app.render.contract import Cancelled, Phase, RenderJob, RenderResult
from app.render.duix.renderer import DuixRenderer
from app.retry.taxonomy import CodedError, Failure
from tests.media.makers import write_video
from tests.render.remote.conftest import Listener
from tests.render.remote.duix_server import DuixServer
from tests.render.remote.rough_peer import HANG_UP, answer, silent

QUICK = {"poll_s": 0.01, "lost_s": 0.2, "unreachable_s": 0.3, "silence_s": 30.0, "header_s": 0.5, "call_s": 2.0}


class Studio:
    """One renderer with its server."""

    def __init__(self, server: DuixServer, tmp_path: Path, listener: Listener) -> None:
        self.server = server
        self.listener = listener
        self._out = tmp_path / "out"
        self._jobs = 0
        self._settings = {"url": server.url, "shared_dir": str(server.folder), **QUICK}
        self.renderer = self.build()

    def build(self, **settings: Any) -> DuixRenderer:
        made = registry.create("duix", self._settings | {"cache_dir": "not its business", **settings})
        assert isinstance(made, DuixRenderer)
        made.load("cpu")
        self.renderer = made
        return made

    def job(self, source: Path, audio: Path, **options: Any) -> RenderJob:
        self._jobs += 1
        out = self._out / str(self._jobs)
        out.mkdir(parents=True)
        return RenderJob(source, audio, out, registry.validate_options("duix", options), traceparent="00-1-2-01")

    def fails(self, job: RenderJob) -> Failure:
        with pytest.raises(CodedError) as caught:
            self.renderer.render(job, self.listener)
        return caught.value.failure


@pytest.fixture
def studio(tmp_path: Path, video: Path, listener: Listener) -> Iterator[Studio]:
    server = DuixServer(tmp_path / "shared", video)
    studio = Studio(server, tmp_path, listener)
    yield studio
    studio.renderer.close()
    server.close()


def check(result: RenderResult, job: RenderJob) -> None:
    check_output(result, job)
    assert [path.name for path in job.output_dir.iterdir()] == [result.path.name]


def test_a_template_comes_back_as_a_checked_video_and_nothing_stays(studio, video, speech):
    job = studio.job(video, speech, super_resolution=True)
    result = studio.renderer.render(job, studio.listener)
    check(result, job)
    assert (result.frames, result.fps, result.facts["pictures_kept"]) == (30, 25.0, True)
    order = studio.server.submitted[0]
    assert (order["chaofen"], order["watermark_switch"], order["pn"]) == (1, 0, 1)
    assert order["video_url"].startswith("/code/data/greenroom/")
    assert studio.server.seen_inputs == [("h264 30", 16_000, 1)]
    assert studio.server.left() == []


def test_a_portrait_is_sent_as_a_video_as_long_as_the_speech(studio, picture, speech):
    job = studio.job(picture, speech)
    check(studio.renderer.render(job, studio.listener), job)
    assert studio.server.seen_inputs == [("h264 30", 16_000, 1)]


def test_progress_that_stands_is_a_sign_of_life_and_never_goes_back(studio, video, speech):
    studio.server.steps = [10] * 5 + [20] * 5 + [15, 90, 100, 100]
    studio.renderer.render(studio.job(video, speech), studio.listener)
    renders = [done for phase, done, _ in studio.listener.reports if phase is Phase.RENDER]
    assert len(renders) >= 14  # the progress clock moves with every answer
    assert renders == sorted(renders)
    assert max(renders) == 99  # its 100 % is not ours


def test_a_stage_that_is_silent_for_too_long_fails(studio, video, speech):
    studio.server.steps, studio.server.stands = [20], True
    studio.build(silence_s=0.3)
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_TIMEOUT", "silent")
    assert "20 %" in failure.message


def test_busy_is_told_by_a_code_beside_success_true(studio, video, speech):
    studio.server.busy = True
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["answer"]) == ("UPSTREAM_BUSY", 10001)
    assert "忙碌中" in failure.message
    assert (len(studio.server.submitted), studio.server.left()) == (1, [])


def test_a_task_that_its_server_does_not_know_yet_is_waited_for(studio, video, speech):
    studio.server.unknown_first = 3
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)


def test_a_vanished_task_is_lost_after_a_minute_and_not_before(studio, video, speech):  # R0.3
    assert studio.build().own.lost_s == 0.2
    assert registry.capabilities("duix").settings.model_fields["lost_s"].default == 60.0
    studio.server.forgets_after = 2
    began = time.monotonic()
    failure = studio.fails(studio.job(video, speech))
    assert failure.code == "TASK_LOST"
    assert failure.detail["missing_s"] >= 0.2
    assert time.monotonic() - began < 20
    assert studio.server.left() == []


def test_a_result_whose_only_announcement_was_lost_is_found_in_the_folder(studio, video, speech):
    studio.server.lose_end = True
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)
    assert studio.server.left() == []


@pytest.mark.parametrize("name", ["/code/data/temp/{code}-r.mp4", "{code}-r.mp4", ""])
def test_results_are_named_in_several_ways(studio, video, speech, name):
    studio.server.result_name = name
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)
    assert studio.server.left() == []


@pytest.mark.parametrize(
    "name", ["/../../{code}", "/code/data/../../etc/passwd", "http://127.0.0.2/x.mp4", "file:///x"]
)
def test_a_result_elsewhere_is_not_touched(studio, video, speech, name):
    studio.server.result_name = name
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_REJECTED", "outside")


def test_a_result_can_be_fetched_over_http(studio, video, speech):
    studio.server.keep_file = False
    studio.build(result_url=studio.server.url + "/files/")
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)
    assert studio.listener.count("result") == 1
    studio.server.result_name = studio.server.url + "/files/{code}-r.mp4"
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)


def test_a_result_that_is_told_but_not_there_says_what_to_check(studio, video, speech, monkeypatch):
    monkeypatch.setattr("app.render.duix.renderer._APPEARS_S", 0.1)
    studio.server.keep_file = False
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("OUTPUT_INVALID", "no_result")
    assert "shared_dir" in failure.hint
    assert studio.server.left() == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("[x]音频特征提取失败，异常信息:[CUDA out of memory. Tried to allocate 2 GiB]", "GPU_OOM"),
        ("[x]预处理失败，异常信息:[format video error]", "UPSTREAM_REJECTED"),
        ("[x]预处理失败，异常信息:[format audio error]", "UPSTREAM_REJECTED"),
        ("存在多人脸", "UPSTREAM_REJECTED"),
        ("[x]视频帧队列处理异常结束，异常原因:['NoneType' object is not iterable]", "UPSTREAM_5XX"),
        ("**生成视频失败", "UPSTREAM_5XX"),
        ("no final result", "UPSTREAM_5XX"),
        ("", "UPSTREAM_5XX"),
    ],
)
def test_a_failed_task_keeps_the_servers_words_and_never_none(studio, video, speech, words, code):  # R0.1
    studio.server.steps = [10, words]
    failure = studio.fails(studio.job(video, speech))
    assert failure.code == code
    assert "at 10 %" in failure.message  # the server itself says 0 by then
    assert (words or "queue.Empty") in failure.message
    assert ("shared_dir" in failure.hint) == ("format" in words)
    assert studio.server.left() == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"code": 9999, "success": False, "msg": "系统异常", "data": {}}, "UPSTREAM_5XX"),
        ({"code": 10002, "success": False, "msg": "参数异常", "data": {}}, "UPSTREAM_REJECTED"),
        ({"code": 10003, "success": False, "msg": None, "data": {}}, "UPSTREAM_5XX"),
        ({"code": 1, "msg": 1}, "UPSTREAM_5XX"),
        ({"status": "ok"}, "UPSTREAM_5XX"),
        ({"code": True}, "UPSTREAM_5XX"),
    ],
)
def test_a_refused_submission_is_told_by_its_code(studio, video, speech, answer, code):
    unknown = {"code": 10004, "success": True, "msg": "任务不存在", "data": {}}
    studio.server.override = lambda path, _answer: answer if path == "/easy/submit" else unknown
    failure = studio.fails(studio.job(video, speech))
    assert failure.code == code
    json.dumps(failure.detail)


@pytest.mark.parametrize(
    "data", [None, [], {"status": 7}, {"status": "2"}, {"progress": 50}, {"status": None, "progress": "x"}]
)
def test_a_query_that_makes_no_sense_is_a_server_error(studio, video, speech, data):
    lie = {"code": 10000, "success": True, "msg": "", "data": data}
    studio.server.override = lambda path, _answer: lie if path == "/easy/query" else None
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_5XX", "unexpected")


def test_odd_numbers_in_a_good_answer_do_no_harm(studio, video, speech):
    def lie(path: str, told: dict[str, Any]) -> dict[str, Any]:
        if path == "/easy/query" and told["data"]["status"] == 1:
            told["data"] |= {"progress": "much", "msg": 17}
        return told

    studio.server.override = lie
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)


def test_a_broken_video_is_not_taken_for_a_result(studio, tmp_path, video, speech):
    studio.server.made = write_video(tmp_path / "short.mp4", frames=10)
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("OUTPUT_INVALID", "too_short")


def test_a_server_that_is_away_for_a_moment_costs_nothing(studio, video, speech):
    glitches = iter([{"code": 9999, "msg": "系统异常"}, {"code": 10003, "msg": ""}])
    studio.server.override = lambda path, _answer: next(glitches, None) if path == "/easy/query" else None
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)


def test_a_server_that_stays_away_fails_with_its_last_word(studio, rough, video, speech):
    peer = rough(answer("200 OK", b'{"code": 10000, "msg": 10000, "data": {}}'), HANG_UP)
    studio.build(url=peer.url)
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_CONNECTION", "cut_off")


def test_a_submission_that_is_not_answered_is_not_repeated(studio, rough, video, speech):
    peer = rough(silent(2), answer("200 OK", b'{"code": 10004, "success": true, "msg": "", "data": {}}'))
    studio.build(url=peer.url, header_s=0.2)
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_TIMEOUT", "header_timeout")
    assert [request.split(b" ")[0] for request in peer.requests] == [b"POST", b"GET"]


@pytest.mark.parametrize("steps", [[10, 20], []])
def test_a_task_whose_acceptance_was_lost_is_followed(studio, video, speech, steps):
    studio.server.answers_lost, studio.server.steps = 1, steps
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)
    assert (len(studio.server.submitted), studio.server.left()) == (1, [])


def test_a_server_that_still_tidies_up_after_the_last_task_is_waited_for(studio, video, speech):
    studio.server.tidies = 2
    for submissions in (1, 4):
        job = studio.job(video, speech)
        check(studio.renderer.render(job, studio.listener), job)
        assert len(studio.server.submitted) == submissions


def test_a_cancelled_render_is_remembered_until_its_server_is_done(studio, video, speech):
    server = studio.server
    server.steps, server.stands = [20], True
    studio.listener.cancel_when = lambda: server.looks >= 2
    began = time.monotonic()
    with pytest.raises(Cancelled):
        studio.renderer.render(studio.job(video, speech), studio.listener)
    assert time.monotonic() - began < 2
    (abandoned,) = server.running
    assert any(abandoned in name for name in server.left())  # the server still reads them

    studio.listener.cancel_when = lambda: False
    studio.build()  # also after the process has changed
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_BUSY", "abandoned")
    assert len(server.submitted) == 1

    server.finish()
    job = studio.job(video, speech)
    check(studio.renderer.render(job, studio.listener), job)
    assert server.left() == []


def test_a_cancel_while_the_inputs_are_laid_out_leaves_nothing(studio, picture, speech):
    studio.listener.cancel_when = lambda: len(studio.listener.reports) >= 2
    with pytest.raises(Cancelled):
        studio.renderer.render(studio.job(picture, speech), studio.listener)
    assert (studio.server.submitted, studio.server.left()) == ([], [])


def test_what_a_killed_worker_left_is_removed_when_it_is_old(studio, video, speech):
    for name, age in (("old", 2 * 86_400), ("young", 60)):
        folder = studio.server.folder / "greenroom" / name
        folder.mkdir(parents=True)
        (folder / "source.mp4").touch()
        os.utime(folder, (time.time() - age,) * 2)
    studio.renderer.render(studio.job(video, speech), studio.listener)
    assert studio.server.left() == ["greenroom/young/source.mp4"]


@pytest.mark.parametrize("name", ["file", "not mounted"])
def test_a_shared_folder_that_cannot_be_used_is_told_with_what_to_do(studio, tmp_path, video, speech, name):
    (tmp_path / "file").touch()
    studio.build(shared_dir=str(tmp_path / name))
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_CONNECTION", "shared_dir")
    assert "shared_dir" in failure.hint


def test_the_calls_are_told_by_kind(studio, video, speech):
    studio.renderer.render(studio.job(video, speech), studio.listener)
    assert (studio.listener.count("submit"), studio.listener.count("query")) == (1, 6)


@pytest.mark.parametrize("change", [{"shared_dir": None}, {"server_dir": "relative"}, {"poll_s": 0}, {"verbose": True}])
def test_a_mistake_in_the_settings_is_told(change):
    model: Callable[..., object] = registry.capabilities("duix").settings.model_validate
    with pytest.raises(ValueError):
        model({"url": "http://127.0.0.1:1", "shared_dir": "/x", **change})


def test_without_a_server_there_is_no_such_renderer():
    assert "url" in registry.why_absent("duix", {})
    assert registry.why_absent("duix", {"url": "http://127.0.0.1:1"}) == ""


def test_nothing_is_laid_out_for_a_server_that_is_not_there(studio, video, speech):
    studio.server.close()
    failure = studio.fails(studio.job(video, speech))
    assert (failure.code, failure.detail["reason"]) == ("UPSTREAM_CONNECTION", "connect")
    assert studio.listener.calls == ["connect"]
    assert not (studio.server.folder / "greenroom").exists()
