"""A person's word over HTTP: what is seen of a task in review, and what each answer does."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from app.store.records import Artifact, Claim
from tests.api.kit import VIDEO, Api, problem

REASON = {"code": "LOW_CONFIDENCE", "message": "The video's confidence is 0.20.", "hint": "Look at it.", "detail": {}}


def in_review(api: Api, **fields: Any) -> str:
    """The id of a new task whose video waits for a person."""
    task_id = str(api.submit(**fields)["id"])
    put_up(api, api.start(task_id))
    return task_id


def put_up(api: Api, claim: Claim) -> None:
    """End an attempt with a video that a person has to judge."""
    path = api.data_dir / "results" / f"{claim.task.id}.mp4"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(VIDEO)
    sha256 = hashlib.sha256(VIDEO).hexdigest()
    artifact = Artifact(f"results/{path.name}", sha256, len(VIDEO), 1.0, 64, 48, 25.0, 25)
    api.store.put_up_for_review(
        claim, artifact, error=REASON, served_by="warp", quality={"confidence": 0.2, "checks": {}, "scores": {}}
    )


def test_the_queue_of_reviews_is_listed_with_reasons(api: Api) -> None:  # R3.3
    api.finished()
    task_id = in_review(api)
    (task,) = api.client.get("/tasks", params={"status": "REVIEW"}).json()["tasks"]
    assert (task["id"], task["is_terminal"], task["wait_reason"]) == (task_id, False, "review")
    assert (task["error"]["code"], task["error"]["message"]) == ("LOW_CONFIDENCE", REASON["message"])
    assert task["quality"]["confidence"] == 0.2
    assert task["output"] is None
    assert task["links"]["output"] is None
    assert task["links"]["review"] == {
        "output": f"/tasks/{task_id}/output?review=true",
        "approve": f"/tasks/{task_id}/approve",
        "reject": f"/tasks/{task_id}/reject",
        "rerender": f"/tasks/{task_id}/rerender",
    }


def test_the_video_is_shown_to_the_reviewer_alone(api: Api) -> None:
    task_id = in_review(api)
    assert problem(api.client.get(f"/tasks/{task_id}/output"), 409, "TASK_NOT_FINISHED")["state"] == "REVIEW"
    shown = api.client.get(f"/tasks/{task_id}/output?review=true")
    assert (shown.status_code, shown.content) == (200, VIDEO)


def test_an_approved_video_is_everybodys(api: Api) -> None:
    task_id = in_review(api)
    answer = api.client.post(f"/tasks/{task_id}/approve", json={"who": "Anna", "reason": "fine"})
    assert answer.status_code == 200
    task = answer.json()
    assert (task["status"], task["error"], task["links"]["review"]) == ("SUCCEEDED", None, None)
    assert task["quality"]["review"] == {"verdict": "approved", "who": "Anna", "reason": "fine"}
    assert api.client.get(f"/tasks/{task_id}/output").content == VIDEO


def test_a_rejected_video_is_nobodys(api: Api) -> None:
    task_id = in_review(api)
    task = api.client.post(f"/tasks/{task_id}/reject", json={"who": "Anna", "reason": "teeth"}).json()
    assert (task["status"], task["error"]["code"]) == ("FAILED", "LOW_CONFIDENCE")
    assert task["error"]["message"] == "The video was rejected by Anna: teeth"
    problem(api.client.get(f"/tasks/{task_id}/output"), 404, "TASK_HAS_NO_OUTPUT")
    problem(api.client.get(f"/tasks/{task_id}/output?review=true"), 404, "TASK_HAS_NO_OUTPUT")


def test_a_video_is_made_again_with_other_options(api: Api) -> None:
    task_id = in_review(api, options={"strength": 0.5})
    body = {"who": "Anna", "options": {"strength": 1.2}}
    task = api.client.post(f"/tasks/{task_id}/rerender", json=body).json()
    assert (task["status"], task["error"], task["quality"]) == ("QUEUED", None, None)
    assert api.store.get(task_id).options["strength"] == 1.2  # type: ignore[union-attr]
    api.succeed(api.start(task_id))
    assert api.client.get(f"/tasks/{task_id}").json()["status"] == "SUCCEEDED"


def test_options_that_are_left_out_stay(api: Api) -> None:
    task_id = in_review(api, options={"strength": 0.5})
    assert api.client.post(f"/tasks/{task_id}/rerender", json={"who": "Anna"}).status_code == 200
    assert api.store.get(task_id).options["strength"] == 0.5  # type: ignore[union-attr]


@pytest.mark.parametrize("word", ["approve", "reject", "rerender"])
def test_a_task_that_is_not_in_review_cannot_be_decided(api: Api, word: str) -> None:
    body = {"who": "Anna", "reason": "no"}
    waiting = str(api.submit()["id"])
    assert (
        problem(api.client.post(f"/tasks/{waiting}/{word}", json=body), 409, "TASK_NOT_IN_REVIEW")["state"] == "QUEUED"
    )
    problem(api.client.post(f"/tasks/nobody/{word}", json=body), 404, "TASK_NOT_FOUND")
    problem(api.client.post(f"/tasks/{'x' * 200}/{word}", json=body), 404, "TASK_NOT_FOUND")


@pytest.mark.parametrize(
    ("word", "body", "field", "reason"),
    [
        ("approve", {}, "who", "missing"),
        ("approve", {"who": ""}, "who", "string_too_short"),
        ("approve", {"who": "Anna", "why": "x"}, "why", "unknown_field"),
        ("reject", {"who": "Anna"}, "reason", "missing"),
        ("reject", {"who": "Anna", "reason": "x" * 3000}, "reason", "string_too_long"),
        ("rerender", {"who": "Anna", "renderer": "magic"}, "renderer", "unknown_renderer"),
        ("rerender", {"who": "Anna", "options": {"strength": 9}}, "options.strength", "less_than_equal"),
    ],
)
def test_a_word_that_is_not_understood_changes_nothing(
    api: Api, word: str, body: dict[str, Any], field: str, reason: str
) -> None:
    task_id = in_review(api)
    answer = problem(api.client.post(f"/tasks/{task_id}/{word}", json=body), 422, "REQUEST_INVALID", field)
    assert answer["reason"] == reason
    assert api.client.get(f"/tasks/{task_id}").json()["status"] == "REVIEW"


def test_a_body_that_is_no_json_is_refused(api: Api) -> None:
    task_id = in_review(api)
    headers = {"content-type": "text/plain"}
    answer = api.client.post(f"/tasks/{task_id}/approve", content=b"ok", headers=headers)
    problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type")
