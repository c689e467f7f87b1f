"""Videos that a person decides about: put up under the fence, decided once, each word an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.store.errors import NotInReview, StaleClaim
from app.store.interface import Store
from app.store.records import Claim, Order, TaskFilter, TaskRecord, Verdict
from app.tasks.replay import replay
from app.tasks.status import Status
from tests.store.kit import ARTIFACT, START, Clock, create, kinds, must_claim, must_get, succeed

REASON = {"code": "LOW_CONFIDENCE", "message": "lips_follow 0.20", "hint": "", "detail": {}}
QUALITY = {"confidence": 0.2, "checks": {}, "scores": {"lips_follow": 0.2}}
ANNA = Verdict("Anna", "seen it")


def put_up(store: Store, held: Claim) -> TaskRecord:
    return store.put_up_for_review(held, ARTIFACT, error=REASON, served_by="warp", quality=QUALITY)


def in_review(store: Store, **fields: Any) -> str:
    task = create(store, **fields)
    put_up(store, must_claim(store))
    return task.id


def test_a_doubtful_video_waits_for_a_person_and_for_nothing_else(store: Store, clock: Clock) -> None:  # R3.3
    task_id = in_review(store, deadline_at=START + 50)
    task = must_get(store, task_id)
    assert (task.status, task.output, task.quality, task.error) == (Status.REVIEW, ARTIFACT, QUALITY, REASON)
    assert (task.attempts[0].outcome, task.attempts[0].error) == ("failed", REASON)
    assert (task.lease_owner, task.finished_at) == (None, None)
    clock.advance(1000)
    assert store.rescue_expired() == store.take_back("node-1") == store.expire_waiting() == []
    assert must_get(store, task_id).status is Status.REVIEW
    assert store.queue().by_status[Status.REVIEW] == 1
    page = asyncio.run(store.alist(TaskFilter(status=(Status.REVIEW,))))
    assert [(found.id, found.error) for found in page.tasks] == [(task_id, REASON)]


def test_an_attempt_that_is_no_longer_current_puts_nothing_up(store: Store, clock: Clock) -> None:
    create(store)
    held = must_claim(store)
    clock.advance(60)
    store.rescue_expired()
    with pytest.raises(StaleClaim):
        put_up(store, held)
    assert must_get(store, held.task.id).output is None


def test_a_cancelled_task_is_not_put_up(store: Store) -> None:
    task = create(store)
    held = must_claim(store)
    store.cancel(task.id)
    after = put_up(store, held)
    assert (after.status, after.output) == (Status.CANCELLED, None)


def test_approval_makes_it_a_success_with_its_word(store: Store, clock: Clock) -> None:
    task_id = in_review(store)
    clock.advance(100)
    asyncio.run(store.aapprove(task_id, ANNA))
    task = must_get(store, task_id)
    assert (task.status, task.output, task.error, task.finished_at) == (Status.SUCCEEDED, ARTIFACT, None, START + 100)
    word = {"verdict": "approved", "who": "Anna", "reason": "seen it"}
    assert task.quality == QUALITY | {"review": word}
    assert kinds(store, task_id) == ["queued", "running", "review", "succeeded"]
    assert store.events(task_id)[-1].data["review"] == word


def test_rejection_makes_it_a_failure_without_the_video(store: Store) -> None:
    task_id = in_review(store)
    asyncio.run(store.areject(task_id, ANNA))
    task = must_get(store, task_id)
    assert (task.status, task.output) == (Status.FAILED, None)
    assert task.error is not None
    assert (task.error["code"], task.error["message"]) == (
        "LOW_CONFIDENCE",
        "The video was rejected by Anna: seen it",
    )
    assert kinds(store, task_id) == ["queued", "running", "review", "failed"]


def test_a_rerender_queues_the_task_again_with_its_new_order(store: Store, clock: Clock) -> None:
    first = in_review(store, options={"strength": 0.1})
    clock.advance(10)
    create(store)
    asyncio.run(store.arerender(first, ANNA, Order("wav2lip", "none", {"crf": 18}, ("wav2lip", "other"))))
    task = must_get(store, first)
    assert (task.status, task.renderer, task.options) == (Status.QUEUED, "wav2lip", {"crf": 18})
    assert (task.fallback, task.route) == ("none", ("wav2lip", "other"))
    assert (task.output, task.quality, task.error, task.retries) == (None, None, None, 0)
    held = must_claim(store)
    assert (held.task.id, held.attempt) == (first, 2), "it kept its place"
    assert held.earlier == ("LOW_CONFIDENCE",)
    succeed(store, held)
    assert kinds(store, first) == ["queued", "running", "review", "queued", "running", "succeeded"]
    assert replay(store.events(first)) is Status.SUCCEEDED


Decision = Callable[[Store, str], Coroutine[Any, Any, TaskRecord | None]]
DECISIONS: dict[str, Decision] = {
    "approve": lambda store, task_id: store.aapprove(task_id, ANNA),
    "reject": lambda store, task_id: store.areject(task_id, ANNA),
    "rerender": lambda store, task_id: store.arerender(task_id, ANNA, Order(None, "any", {}, ())),
}


@pytest.mark.parametrize("second", DECISIONS)
@pytest.mark.parametrize("first", DECISIONS)
def test_only_the_first_word_counts(store: Store, first: str, second: str) -> None:
    task_id = in_review(store)
    asyncio.run(DECISIONS[first](store, task_id))  # type: ignore[arg-type]
    before = must_get(store, task_id)
    with pytest.raises(NotInReview) as caught:
        asyncio.run(DECISIONS[second](store, task_id))  # type: ignore[arg-type]
    assert caught.value.status is before.status
    assert must_get(store, task_id) == before


@pytest.mark.parametrize("name", DECISIONS)
def test_an_unknown_task_is_nobodys(store: Store, name: str) -> None:
    assert asyncio.run(DECISIONS[name](store, "task_unknown")) is None  # type: ignore[arg-type]


def test_a_task_in_review_can_be_cancelled(store: Store) -> None:
    task_id = in_review(store)
    assert store.cancel(task_id) == "cancelled"
    assert must_get(store, task_id).status is Status.CANCELLED
