"""What committed events and the state of the service become on the metrics page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.store.deliveries import OutboxStats
from app.store.figures import CacheStats, QueueStats
from app.store.interface import Store
from app.store.records import KeepFor
from app.store.sql import open_store
from app.telemetry.metrics import Metrics
from tests.database import empty_database
from tests.store.kit import ARTIFACT, ERROR, Clock, create, must_claim, succeed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(empty_database(tmp_path / "greenroom.db"), Clock())
    yield opened
    opened.close()


class State:
    """A service at rest, with a disk that tells or not."""

    free: int | None = 123

    def queue(self) -> QueueStats:
        return QueueStats({}, 0, 0, 3, None, paused=False, chained=5)

    def cache(self) -> CacheStats:
        return CacheStats(results=4, bytes=5000)

    def outbox(self) -> OutboxStats:
        return OutboxStats(pending=2, dead=1)

    def slot_states(self) -> Mapping[str, int]:
        return {"idle": 1}

    def judges_line(self) -> tuple[int, int]:
        return 5, 1

    def disk_free_bytes(self) -> int | None:
        return self.free


def test_retries_and_ends_are_counted_from_what_was_committed(store: Store) -> None:  # R3.10
    metrics = Metrics()
    create(store)
    store.end_attempt(must_claim(store), "retry", error=ERROR, backoff_ms=1500)
    store.end_attempt(must_claim(store), "requeue", error=ERROR)
    succeed(store, must_claim(store))
    store.cancel(create(store).id)
    metrics.tasks.count_events(store.events(None))
    value = metrics.registry.get_sample_value
    assert value("greenroom_retries_total", {"code": "WORKER_CRASHED", "tier": "warp"}) == 1
    assert value("greenroom_retry_backoff_seconds_count") == 1
    assert value("greenroom_retry_backoff_seconds_sum") == 1.5
    ended = {status: value("greenroom_tasks_finished_total", {"status": status}) for status in ("SUCCEEDED", "FAILED")}
    assert ended == {"SUCCEEDED": 1, "FAILED": 0}
    assert value("greenroom_tasks_finished_total", {"status": "CANCELLED"}) == 1


def test_a_cancel_that_was_only_asked_for_ends_nothing(store: Store) -> None:
    metrics = Metrics()
    create(store)
    store.cancel(must_claim(store).task.id)
    metrics.tasks.count_events(store.events(None))
    assert metrics.registry.get_sample_value("greenroom_tasks_finished_total", {"status": "CANCELLED"}) == 0


def test_the_disk_is_told_as_far_as_it_tells() -> None:  # R3.12
    metrics, state = Metrics(), State()
    metrics.watch(state)
    assert metrics.registry.get_sample_value("greenroom_disk_free_bytes") == 123
    state.free = None
    assert metrics.registry.get_sample_value("greenroom_disk_free_bytes") is None


def test_the_cache_is_counted_by_what_became_of_tasks_and_shown_with_its_size(store: Store) -> None:  # R2.7
    metrics = Metrics()
    metrics.watch(State())
    keys = ("a" * 64,)
    create(store)
    store.cancel(create(store).id)
    create(store, cache_keys=keys)
    create(store, cache_keys=keys)
    must_claim(store)
    store.succeed(must_claim(store), ARTIFACT, served_by="warp", keep=KeepFor(keys[0], 60.0, 10**9))
    create(store, cache_keys=keys)
    create(store, cache_keys=keys)
    metrics.tasks.count_events(store.events(None))
    value = metrics.registry.get_sample_value
    used = [value(f"greenroom_cache_{what}_total") for what in ("hits", "misses", "joins")]
    assert used == [2, 1, 1]
    assert (value("greenroom_cache_results"), value("greenroom_cache_bytes")) == (4, 5000)
    assert value("greenroom_queue_depth", {"kind": "joined"}) == 3
    assert value("greenroom_queue_depth", {"kind": "chained"}) == 5


def test_deliveries_are_counted_and_what_waits_is_shown() -> None:  # R1.10
    metrics = Metrics()
    metrics.watch(State())
    metrics.notices.notice_tried("delivered", 0.2)
    metrics.notices.notice_tried("retry", 15.0)
    value = metrics.registry.get_sample_value
    counted = {o: value("greenroom_webhook_deliveries_total", {"outcome": o}) for o in ("delivered", "retry", "dead")}
    assert counted == {"delivered": 1, "retry": 1, "dead": 0}
    assert value("greenroom_webhook_duration_seconds_sum", {"outcome": "retry"}) == 15
    assert (value("greenroom_webhook_pending"), value("greenroom_webhook_dead")) == (2, 1)


def test_the_page_has_the_series_that_are_documented_and_no_birthdays() -> None:
    metrics = Metrics()
    metrics.observe_request("GET", "/tasks", 200, 0.1)
    metrics.tasks.count_events([])
    page, _ = metrics.render()
    assert b'greenroom_http_request_duration_seconds_count{method="GET",route="/tasks",status="200"} 1.0' in page
    assert b"_created" not in page
    families = list(text_string_to_metric_families(page.decode()))
    assert len(families) > 20
    for family in families:
        assert family.documentation, family.name
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{family.name}_total"}
