"""The judgement of a drill: every kind of misbehaviour is told, and nothing that is right."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from app.cli.drill import verify
from app.cli.drill.inside import FAULTS
from app.cli.drill.playing import DRILLS, play
from app.cli.drill.report import Report, Row
from app.cli.drill.scene import Drill, Scene, Seen
from app.cli.drill.stage import OWN
from app.cli.drill.terms import QUICK, Terms
from app.cli.drill.webhooks import is_signed
from app.config import Settings
from app.notify.signing import signature
from app.retry.taxonomy import FAILURE_TABLE, FailureCode
from greenroom.client import ServiceUnreachable

Task = dict[str, Any]
VIDEO = b"a whole video"
ERROR = {"code": "WORKER_CRASHED", "message": "It was killed by SIGKILL.", "hint": "It is tried again."}
TASK: Task = {
    "id": "task_7",
    "status": "SUCCEEDED",
    "is_terminal": True,
    "attempts": [
        {"n": 1, "outcome": "failed", "error": ERROR, "started_at": "2026-01-31T12:00:00Z",
         "ended_at": "2026-01-31T12:00:01Z"},
        {"n": 2, "outcome": "succeeded", "error": None, "started_at": "2026-01-31T12:00:02Z",
         "ended_at": "2026-01-31T12:00:03Z"},
    ],
    "error": None,
    "output": {"bytes": len(VIDEO), "sha256": hashlib.sha256(VIDEO).hexdigest()},
}  # fmt: skip
STORY = ["WORKER_CRASHED", "SUCCEEDED"]
EVENTS = ["task.queued", "task.running", "task.retry_wait", "task.running", "task.succeeded"]


def wrong_with(task: Task, events: list[str] = EVENTS, body: bytes = VIDEO) -> list[str]:
    return [
        *verify.wrong_end(task, "SUCCEEDED", STORY, "SIGKILL"),
        *verify.wrong_record(task),
        *verify.wrong_events("SUCCEEDED", events),
        *(verify.wrong_bytes(task, body) if task["output"] else []),
    ]


def test_a_task_that_went_as_it_must_has_nothing_wrong() -> None:
    assert wrong_with(TASK) == []


def _ran_twice_at_once(task: Task) -> None:
    task["attempts"][1]["started_at"] = "2026-01-31T12:00:00.5Z"


def _succeeded_twice(task: Task) -> None:
    task["attempts"][0] |= {"outcome": "succeeded", "error": None}


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda task: task.update(status="FAILED", error=ERROR), "it is FAILED, not SUCCEEDED"),
        (lambda task: task.update(output=None), "has no result"),
        (lambda task: task["attempts"].pop(), "its attempts are WORKER_CRASHED, not"),
        (lambda task: task["attempts"][1].update(n=3), "not numbered"),
        (lambda task: task["attempts"][1].update(ended_at=None), "has no end"),
        (lambda task: task["attempts"][0].update(error=ERROR | {"code": "INTERNAL"}), "INTERNAL"),
        (lambda task: task["attempts"][0].update(error=ERROR | {"message": " "}), "has no message"),
        (lambda task: task["attempts"][0].update(error=ERROR | {"hint": ""}), "has no hint"),
        (lambda task: task["attempts"][0].update(error=ERROR | {"message": "It died."}), "does not say 'SIGKILL'"),
        (_ran_twice_at_once, "at the same time"),
        (_succeeded_twice, "2 of its attempts succeeded"),
    ],
)
def test_a_record_that_is_not_true_is_told(spoil: Callable[[Task], Any], word: str) -> None:
    task = copy.deepcopy(TASK)
    spoil(task)
    assert any(word in what for what in wrong_with(task)), wrong_with(task)


@pytest.mark.parametrize(
    ("events", "word"),
    [
        ([*EVENTS, "task.succeeded"], "the ends task.succeeded, task.succeeded"),
        ([*EVENTS, "task.running"], "follows its end"),
        (EVENTS[:-1], "the ends none"),
        ([*EVENTS[:-1], "task.failed"], "the ends task.failed"),
    ],
)
def test_an_event_log_without_exactly_one_end_is_told(events: list[str], word: str) -> None:
    assert any(word in what for what in wrong_with(TASK, events=events))


@pytest.mark.parametrize(("body", "word"), [(VIDEO[:-1], "12 bytes"), (VIDEO[::-1], "SHA-256"), (b"", "0 bytes")])
def test_a_file_that_is_not_whole_is_told(body: bytes, word: str) -> None:
    assert any(word in what for what in wrong_with(TASK, body=body))


def test_a_false_hundred_per_cent_is_told() -> None:  # R1.4
    glimpse = {"is_terminal": False, "status": "RUNNING", "progress": {"fraction": 1.0}}
    assert verify.wrong_glimpses([glimpse]) == ["it showed 100 % while it was RUNNING"]
    assert verify.wrong_glimpses([glimpse | {"progress": {"fraction": 0.99}}, glimpse | {"is_terminal": True}]) == []


def test_a_health_check_without_an_answer_is_told() -> None:
    assert verify.wrong_answers([0.01, None, 0.02]) == ["1 of 3 looks at its health got no answer"]
    assert verify.wrong_answers([]) == ["nobody looked at its health"]
    assert verify.wrong_answers([0.01]) == []


def test_equal_ends_are_counted_in_the_story() -> None:
    assert verify.telling("FAILED", ["WORKER_CRASHED"] * 3) == "3 times WORKER_CRASHED, then FAILED"
    assert verify.telling("SUCCEEDED", STORY) == "WORKER_CRASHED, then SUCCEEDED"
    assert verify.telling("QUEUED", []) == "QUEUED"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_must_follow_is_the_failure_table_s_word(fault: Any) -> None:
    status, story = fault.story(Terms(Settings(), start_s=1.0))
    retries = FAILURE_TABLE[fault.code].retries
    assert (status == "SUCCEEDED") is (retries > 0 and not fault.always)
    assert story.count(fault.code.value) == (1 + retries if fault.always else 1)
    status, story = fault.story(Terms(Settings(max_retries=0), start_s=1.0))
    assert (status, story) == ("FAILED", [fault.code.value])


def test_times_follow_the_settings() -> None:
    own, quick = Terms(Settings(), start_s=1.0), Terms(Settings.model_validate(QUICK), start_s=1.0)
    assert own.found_s(FailureCode.WORKER_UNRESPONSIVE) == 20.0
    assert own.pause_s(FailureCode.DISK_FULL, 2) == 60.0
    assert quick.takeover_s() < own.takeover_s()
    for drill in DRILLS.values():
        assert 0 < drill.about_s(quick) <= drill.about_s(own)
        assert drill.expected(own).strip()


def test_the_service_of_a_drill_touches_nothing_of_the_configured_one() -> None:
    """A new setting that names a place where something is kept or sent has to be settled for drills, too."""
    places = {name for name in Settings.model_fields if name.endswith(("_url", "_dir", "_roots", "_endpoint"))}
    # `data_dir` is a flag of its own, `media_roots` are only read, and the other one is a number.
    assert places - set(OWN) == {"data_dir", "media_roots", "webhook_concurrency_per_endpoint"}


def test_recovery_that_takes_longer_than_the_settings_allow_is_wrong() -> None:
    seen = Seen()
    seen.recovered(3.0, 4.0, "until it ran")
    assert seen.wrong == []
    seen.recovered(5.0, 4.0, "until it ran")
    assert seen.wrong == ["it took 5.0 s to recover; the settings allow 4.0 s"]


def test_a_signature_that_is_not_the_secret_s_is_seen() -> None:
    body = b'{"type": "task.succeeded"}'
    headers = {"webhook-id": "m", "webhook-timestamp": "17", "webhook-signature": "v1,AAAA"}
    assert not is_signed(headers, body)
    right = signature([b"greenroom-drill"], "m", 17, body)
    assert is_signed(headers | {"webhook-signature": f"v1,AAAA {right}"}, body)
    assert not is_signed(headers | {"webhook-signature": right}, body + b" ")


def test_a_drill_that_cannot_be_played_has_failed() -> None:
    def play_it(_scene: Scene) -> Seen:
        raise ServiceUnreachable("nobody answered")

    class Quiet:
        terms = Terms(Settings(), start_s=1.0)

        def restore(self) -> list[str]:
            return ["the service was gone"]

        def wrong_after(self) -> list[str]:
            return []

    drill = Drill("broken", "it breaks", lambda _terms: "nothing", play_it, lambda _terms: 1.0)
    row = play(drill, Quiet())  # type: ignore[arg-type]
    assert not row.passed
    assert row.wrong == ("nobody answered", "the service was gone")


def row(*wrong: str) -> Row:
    return Row("worker-killed", "done", "expected", "seen | told", 1.25, "until it ran", 20.0, 2.0, wrong)


def whole(**changes: Any) -> Report:
    report = Report("a service of its own", "2026-01-31T12:00:00+00:00", {}, rows=[row()], accepted=6)
    report.lost, report.doubled = [], []
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def test_a_report_passes_only_if_everything_did() -> None:
    assert whole().passed
    spoilt = [
        {"rows": [row(), row("it is FAILED")]}, {"rows": []}, {"lost": ["task_7"]}, {"lost": None}, {"doubled": ["t"]},
        {"doubled": None}, {"left": ["process 7 is left"]}, {"interrupted": True},
    ]  # fmt: skip
    assert [whole(**changes).passed for changes in spoilt] == [False] * len(spoilt)


def test_a_report_tells_every_row_to_people_and_programs() -> None:
    report = whole(rows=[row(), row("it is FAILED")], lost=["task_7"], left_out={"disk-low": "since it is in use"})
    page = report.as_page()
    assert "| worker-killed | done | expected | seen / told | 1.2 s until it ran (at most 20 s) | passed |" in page
    assert "FAILED: it is FAILED" in page
    assert "1 of 2 drills passed" in page
    assert "lost: task_7" in page
    assert "Left out, since it is in use: disk-low." in page
    told = json.loads(report.as_json())
    assert (told["passed"], told["lost"]) == (False, ["task_7"])
    assert [one["passed"] for one in told["rows"]] == [True, False]
    assert told["rows"][1]["wrong"] == ["it is FAILED"]
