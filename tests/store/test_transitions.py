"""The one place where a status changes: what is illegal or stale is refused and changes nothing."""

from __future__ import annotations

import pytest

from app.store.errors import StaleClaim
from app.store.transitions import move
from app.tasks.status import LEGAL, IllegalTransition, Status
from tests.store.conftest import StoreFactory
from tests.store.kit import Clock, assert_consistent, create, kinds, must_claim


def test_a_task_in_review_is_cancelled_at_once(store_factory: StoreFactory, clock: Clock) -> None:
    store = store_factory(clock)
    task = create(store)
    running = must_claim(store).task
    store._writer.run(lambda tx: move(tx, running, Status.REVIEW, {}, lease_owner=None, lease_expires_at=None))
    assert store.cancel(task.id, "not good") == "cancelled"
    assert kinds(store, task.id) == ["queued", "running", "review", "cancelled"]


@pytest.mark.parametrize("wanted", [status for status in Status if status not in LEGAL[Status.QUEUED]])
def test_an_illegal_transition_is_refused_and_changes_nothing(
    store_factory: StoreFactory, clock: Clock, wanted: Status
) -> None:  # R1.7
    store = store_factory(clock)
    task = create(store)
    with pytest.raises(IllegalTransition):
        store._writer.run(lambda tx: move(tx, task, wanted, {}))
    assert store.get(task.id) == task
    assert_consistent(store)


def test_a_transition_from_what_is_no_longer_so_is_refused(store_factory: StoreFactory, clock: Clock) -> None:
    store = store_factory(clock)
    stale = create(store)
    must_claim(store)
    with pytest.raises(StaleClaim):
        store._writer.run(lambda tx: move(tx, stale, Status.CANCELLED, {}))
    first = store.get(stale.id)
    assert first is not None
    store.take_back("node-1")
    must_claim(store)
    with pytest.raises(StaleClaim):
        store._writer.run(lambda tx: move(tx, first, Status.FAILED, {}))
    assert_consistent(store)
