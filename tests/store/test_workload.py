"""What forecasts are made of: attempts that succeeded, those that run, and the head of the queue."""

from __future__ import annotations

from app.store.figures import Workload
from app.store.interface import Store
from tests.store.kit import ARTIFACT, ERROR, Clock, claim, create, must_claim, run, succeed


def read(store: Store, *, since: float = 0.0, rendered: int = 100, queued: int = 100) -> Workload:
    work = store.workload(since=since, rendered=rendered, queued=queued)
    assert run(store.aworkload(since=since, rendered=rendered, queued=queued)) == work
    return work


def test_what_was_rendered_tells_what_it_was_and_how_long_it_took(store: Store, clock: Clock) -> None:
    task = create(store, options={"blinks": False})
    held = must_claim(store)
    clock.advance(7)
    store.succeed(held, ARTIFACT, served_by="warp", facts={"analysis_cached": True})
    [done] = read(store).rendered
    assert (done.task_id, done.attempt, done.tier) == (task.id, 1, "warp")
    assert done.ended_at - done.started_at == 7
    assert (done.facts, done.inputs.options) == ({"analysis_cached": True}, {"blinks": False})
    assert (done.inputs.source_sha256, done.inputs.source) == (task.source.sha256, task.source.media)
    assert done.inputs.audio == task.audio.media
    assert read(store, since=clock.now).rendered == ()


def test_the_newest_come_oldest_first_and_failures_are_left_out(store: Store, clock: Clock) -> None:
    ids = []
    for n in range(6):
        task = create(store)
        held = must_claim(store)
        clock.advance(1)
        if n == 3:
            store.end_attempt(held, "fail", error=ERROR)
        else:
            succeed(store, held)
            ids.append(task.id)
    assert [done.task_id for done in read(store).rendered] == ids
    assert [done.task_id for done in read(store, rendered=2).rendered] == ids[-2:]


def test_what_runs_is_seen_whoever_holds_it(store: Store, clock: Clock) -> None:
    first = create(store)
    clock.advance(1)
    second = create(store)
    for owner in ("node-1", "node-2"):
        clock.advance(1)
        assert claim(store, owner) is not None
    runs = {work.task_id: work for work in read(store).running}
    assert {task_id: work.owner for task_id, work in runs.items()} == {first.id: "node-1", second.id: "node-2"}
    assert runs[second.id].started_at - runs[first.id].started_at == 1
    assert runs[first.id].tier == "warp"


def test_the_queue_comes_in_its_order_with_what_follows_counted(store: Store, clock: Clock) -> None:
    low = create(store, priority=1, client="anna")
    high = create(store, priority=9)
    later = create(store, not_before=clock.now + 10)
    work = read(store)
    assert [queued.task_id for queued in work.queued] == [high.id, low.id]
    assert (work.queued[1].client, work.queued_more) == ("anna", 0)
    cut = read(store, queued=1)
    assert ([queued.task_id for queued in cut.queued], cut.queued_more) == ([high.id], 1)
    clock.advance(11)
    assert {queued.task_id for queued in read(store).queued} == {high.id, low.id, later.id}, "what is due can start"
    assert read(store, queued=0).queued == ()
