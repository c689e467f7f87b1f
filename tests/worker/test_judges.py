"""The judges with real processes: the line before them, and what may befall them, which is never the video's fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.health.clocks import Limits
from app.render.contract import Phase
from app.retry.taxonomy import Failure, FailureCode
from app.worker import wire
from app.worker.judges import Judges
from app.worker.orders import Orders
from app.worker.pool import LocalPool
from app.worker.sitting import SittingTerms
from tests.worker.conftest import WAIT_S, Observed


class Court:
    """Judges with processes of `judge_double`, and attempts that bring their videos."""

    def __init__(self, folder: Path, *, count: int = 1, timeout_s: float = 60.0, phase_s: float = 60.0) -> None:
        self.folder = folder
        self.seen = Observed()
        self.pool = LocalPool(
            [], serves={}, run_dir=folder / "run", owner="node", start_timeout_s=60.0, sink=lambda slot, line: None,
            observer=self.seen, module="tests.worker.judge_double",
        )  # fmt: skip
        # The heart beats once a second: checks may not come more often.
        limits = Limits(2, {phase.value: phase_s for phase in Phase})
        terms = SittingTerms(timeout_s, 1.5, limits, cancel_grace_s=0.5)
        self.judges = Judges(self.pool, count=count, terms=terms, observer=self.seen)
        self._threads = ThreadPoolExecutor(32)

    def start(self) -> Court:
        self.judges.want()
        self.judges.start()
        return self

    def bring(self, name: str, *, seconds: float = 1.0) -> tuple[Future[wire.Finished | Failure], Orders]:
        """An attempt whose video's name is the cue for the judge."""
        orders = Orders()
        path = str(self.folder / f"{name}.mp4")
        video = wire.Rendered(name, 1, path, 25, 25.0, seconds, 64, 64, 0.5, {"render": 0.4}, {}, {"bytes": 9})
        order = wire.Judge(name, 1, "/source", "/audio", str(self.folder), video)
        return self._threads.submit(self.judges.judge, order, orders), orders

    def judged(self, name: str, **more: Any) -> wire.Finished | Failure:
        return self.bring(name, **more)[0].result(WAIT_S)

    def let_go(self, name: str) -> None:
        (self.folder / f"{name}.go").touch()

    def pids(self, name: str) -> list[int]:
        seen = self.folder / f"{name}.seen"
        return [int(pid) for pid in seen.read_text().split()] if seen.exists() else []

    def until(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end, f"timed out waiting for {what}"
            time.sleep(0.01)

    def stop(self) -> None:
        self.judges.stop()
        self._threads.shutdown()


@pytest.fixture
def court(tmp_path: Path) -> Iterator[Callable[..., Court]]:
    made: list[Court] = []

    def make(**numbers: Any) -> Court:
        made.append(Court(tmp_path, **numbers).start())
        return made[-1]

    yield make
    for one in made:
        one.stop()


def test_a_video_leaves_with_its_judgement_and_what_it_waited(court):
    finished = court().judged("plain")
    assert isinstance(finished, wire.Finished)
    assert (finished.confidence, finished.scores) == (0.9, {"lips_follow": 0.9})
    assert finished.checks["bytes"] == 9
    assert "pid" in finished.checks
    assert set(finished.stages) == {"render", "judge_wait", "judge"}


def test_first_come_first_judged_by_one_process(court):
    bench = court()
    first, _ = bench.bring("wait-0")
    bench.until(lambda: bench.judges.view().judging == 1, "the first to be judged")
    names = [f"plain-{number}" for number in range(1, 12)]
    others = []
    for number, name in enumerate(names, 1):
        others.append(bench.bring(name)[0])
        bench.until(lambda: bench.judges.view().waiting == number, "the next to stand in line")  # noqa: B023
    assert not any(future.done() for future in others)
    bench.let_go("wait-0")
    results = [future.result(WAIT_S) for future in (first, *others)]
    assert len({result.checks["pid"] for result in results}) == 1
    assert (bench.folder / "order").read_text().split() == ["wait-0", *names]
    view = bench.judges.view()
    assert (view.waiting, view.judging) == (0, 0)


def test_a_look_at_the_judges_never_holds_up_their_pool(court, monkeypatch):
    """The pool calls back while it holds its own lock: who asks it must not hold the one that the call wants."""
    bench = court()
    slots = bench.pool.slots

    def slots_amid_a_call() -> Any:
        # What the pool's own thread does at this moment.
        call = threading.Thread(target=bench.judges._call_next, daemon=True)
        call.start()
        call.join(WAIT_S)
        assert not call.is_alive()
        return slots()

    monkeypatch.setattr(bench.pool, "slots", slots_amid_a_call)
    assert len(bench.judges.view().slots) == 1


def test_two_judges_work_side_by_side(court):
    bench = court(count=2)
    futures = [bench.bring(f"wait-{number}")[0] for number in range(2)]
    bench.until(lambda: bench.judges.view().judging == 2, "both to be judged")
    for number in range(2):
        bench.let_go(f"wait-{number}")
    assert len({future.result(WAIT_S).checks["pid"] for future in futures}) == 2


@pytest.mark.parametrize("cue", ["stumble", "freeze", "rubbish", "mistake"])
def test_a_judge_that_fails_is_replaced_and_the_video_is_judged_by_the_next(court, cue):
    bench = court()
    finished = bench.judged(cue)
    assert isinstance(finished, wire.Finished), finished
    first, second = bench.pids(cue)
    assert first != second
    assert not psutil.pid_exists(first)
    assert bench.seen.judged == ["failed", "judged"]
    assert [slot for slot, _ in bench.seen.restarts] == ["judge-0"]


def test_a_video_that_no_judge_survives_fails_for_the_judges_and_the_next_is_judged(court):
    bench = court()
    failure = bench.judged("die")
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.JUDGE_FAILED
    assert "SIGKILL" in failure.message
    assert len(set(bench.pids("die"))) == 2
    assert isinstance(bench.judged("plain"), wire.Finished)


def test_a_judge_that_stands_still_is_found_out_with_its_stacks(court):
    bench = court(phase_s=1.0)
    failure = bench.judged("stall")
    assert failure.code is FailureCode.JUDGE_FAILED
    assert "did not move" in failure.message
    assert "judge_double.py" in failure.detail["stacks"]


def test_the_time_limit_follows_the_videos_length(court):
    bench = court(timeout_s=0.5, count=2)
    long, _ = bench.bring("wait", seconds=600.0)
    bench.until(lambda: bench.pids("wait"), "the long video to be judged")
    failure = bench.judged("crawl", seconds=0.1)
    assert failure.code is FailureCode.JUDGE_FAILED
    assert "time limit" in failure.message
    bench.let_go("wait")
    assert isinstance(long.result(WAIT_S), wire.Finished)
    assert len(bench.pids("wait")) == 1, "it had been judged all the while"


def test_a_file_that_cannot_be_watched_is_the_videos_own_fault_and_costs_no_process(court):
    bench = court()
    failure = bench.judged("broken")
    assert (failure.code, failure.message) == (FailureCode.OUTPUT_INVALID, "a frame is missing")
    assert bench.seen.restarts == []
    assert bench.seen.judged == ["invalid"]


def test_who_is_cancelled_in_line_leaves_it_at_once(court):
    bench = court()
    first, _ = bench.bring("wait-0")
    bench.until(lambda: bench.judges.view().judging == 1, "the first to be judged")
    second, orders = bench.bring("plain-1")
    third, _ = bench.bring("plain-2")
    bench.until(lambda: bench.judges.view().waiting == 2, "two in line")
    orders.end(Failure(FailureCode.CANCELLED))
    assert second.result(WAIT_S).code is FailureCode.CANCELLED
    assert not first.done()
    assert bench.pids("plain-1") == []
    bench.let_go("wait-0")
    assert isinstance(first.result(WAIT_S), wire.Finished)
    assert isinstance(third.result(WAIT_S), wire.Finished)


def test_who_is_cancelled_while_judged_leaves_the_process_as_it_is(court):
    bench = court()
    future, orders = bench.bring("wait-0")
    bench.until(lambda: bench.pids("wait-0"), "the judgement to begin")
    orders.end(Failure(FailureCode.CANCELLED))
    assert future.result(WAIT_S).code is FailureCode.CANCELLED
    assert bench.judged("plain").checks["pid"] == bench.pids("wait-0")[0]
    assert bench.seen.restarts == []


def test_a_judge_that_does_not_yield_to_a_cancel_is_replaced(court):
    bench = court()
    future, orders = bench.bring("deaf")
    bench.until(lambda: bench.pids("deaf"), "the judgement to begin")
    orders.end(Failure(FailureCode.CANCELLED))
    assert future.result(WAIT_S).code is FailureCode.CANCELLED
    assert bench.judged("plain").checks["pid"] != bench.pids("deaf")[0]


def test_where_no_judge_can_start_the_attempt_fails_and_says_so(court, monkeypatch):
    monkeypatch.setenv("TESTS_DIE_AT_START", "judges")
    bench = court()
    failure = bench.judged("plain")
    assert failure.code is FailureCode.JUDGE_FAILED
    assert "before it was ready" in failure.message
    assert bench.judges.why_none()
    monkeypatch.delenv("TESTS_DIE_AT_START")
    bench.until(lambda: not bench.judges.why_none(), "a judge that starts")
    assert isinstance(bench.judged("plain"), wire.Finished)


def test_nothing_is_started_where_no_tier_needs_it_and_nothing_is_left_behind(tmp_path):
    idle = Court(tmp_path)
    idle.judges.start()
    before = threading.active_count()
    assert idle.judges.view().slots == []
    assert idle.judges.why_none() == ""
    idle.judges.want()
    idle.until(lambda: idle.pool.ready_count() == 1, "a judge")
    process = idle.pool.slots()[0].process
    assert process is not None
    pid, descriptors = process.pid, psutil.Process().num_fds()
    idle.stop()
    assert not psutil.pid_exists(pid)
    assert psutil.Process().num_fds() < descriptors
    assert threading.active_count() <= before
