"""The parts that render: slots, judges, the board of tiers, and the dispatcher that brings tasks to them."""

from __future__ import annotations

from collections.abc import Callable

from app.health.clocks import Limits
from app.health.oom import OomCounter
from app.retry.backoff import make_backoff
from app.retry.budget import RetryBudget
from app.service.ground import Ground
from app.service.planning import Planning
from app.service.reload import TierControl
from app.service.terms import cache_terms, phase_limits, sitting_terms
from app.store.records import Claim
from app.telemetry.logs import relay_worker_line
from app.tiers.tiers import Tiers
from app.worker.aftermath import Aftermath
from app.worker.attempt import Attempt, AttemptSettings
from app.worker.board import TierBoard
from app.worker.devices import plan_spares
from app.worker.dispatcher import ClaimTerms, Dispatcher
from app.worker.judges import Judges, plan_judges
from app.worker.launch import JUDGE
from app.worker.pool import LocalPool
from app.worker.settle import Settler
from app.worker.slots import Slot


class Rendering:
    """Built, not started."""

    def __init__(self, ground: Ground, planning: Planning) -> None:
        settings = ground.settings
        self._ground = ground
        tiers = planning.tiers
        plans, serves = planning.slots(tiers)
        self.pool = LocalPool(
            plans,
            serves=serves,
            run_dir=ground.run_dir,
            owner=ground.node.id,
            start_timeout_s=settings.worker_start_timeout_s,
            sink=lambda slot, line: relay_worker_line(slot, line, self.dispatcher.about_slot(slot)),
            observer=ground.metrics.workers,
            spares=plan_spares(planning.devices, settings.spares),
            log_level=settings.log_level,
        )
        self.judges = self._judges()
        self._see_to_judges(tiers)
        self.board = TierBoard(
            tiers,
            self.pool,
            ground.store,
            node=ground.node.id,
            observer=ground.metrics.tiers,
            no_judge=self.judges.why_none,
        )
        self._attempt_settings = AttemptSettings(
            lease_s=settings.lease_s,
            health_interval_s=settings.health_interval_s,
            limits=Limits(settings.health_strikes, phase_limits(settings)),
            cancel_grace_s=settings.cancel_grace_s,
            task_lost_s=settings.task_lost_s,
            attempts_dir=ground.attempts_dir,
            progress_notice_s=settings.webhook_progress_s,
        )
        self.budget = RetryBudget()
        self._settler = Settler(
            ground.store,
            data_dir=ground.data_dir,
            board=self.board,
            aftermath=Aftermath(
                self.board,
                max_retries=settings.max_retries,
                backoff=make_backoff(settings.backoff, settings.backoff_cap_s),
                backoff_cap_s=settings.backoff_cap_s,
                budget=self.budget,
            ),
            patience_s=settings.lease_s,
            budget=self.budget,
            locate=ground.locate,
            attempts_dir=ground.attempts_dir,
            cache=cache_terms(settings),
            confidence_threshold=settings.confidence_threshold,
        )
        self._oom = OomCounter()
        self.dispatcher = Dispatcher(
            ground.store,
            self.pool,
            self.board,
            ClaimTerms(ground.node.id, settings.lease_s),
            self._make_attempt,
            ground.discard,
        )
        self.tier_control = TierControl(
            read=planning.reread,
            board=self.board,
            pool=self.pool,
            plan=planning.slots,
            store=ground.store,
            prepare=self._see_to_judges,
        )
        ground.metrics.tiers.expect_tiers({view.name: view.breaker.value for view in self.board.views()})
        ground.metrics.workers.expect_slots([plan.name for plan in (*plans, *plan_judges(settings.judges))])

    def _make_attempt(self, claim: Claim, slot: Slot, on_done: Callable[[Attempt], None]) -> Attempt:
        return Attempt(
            claim,
            slot,
            pool=self.pool,
            judges=self.judges,
            store=self._ground.store,
            board=self.board,
            settler=self._settler,
            observer=self._ground.metrics.workers,
            locate=self._ground.locate,
            settings=self._attempt_settings,
            count_oom_kills=self._oom.read,
            on_done=on_done,
            tracing=self._ground.tracing,
        )

    def _judges(self) -> Judges:
        settings = self._ground.settings
        pool = LocalPool(
            [],
            serves={},
            run_dir=self._ground.run_dir,
            owner=self._ground.node.id,
            start_timeout_s=settings.worker_start_timeout_s,
            sink=lambda slot, line: relay_worker_line(slot, line, {}),
            observer=self._ground.metrics.workers,
            log_level=settings.log_level,
            module=JUDGE,
        )
        return Judges(pool, count=settings.judges, terms=sitting_terms(settings), observer=self._ground.metrics.workers)

    def _see_to_judges(self, tiers: Tiers) -> None:
        if any(tier.capabilities.judged_apart for tier in tiers.enabled if not tiers.absence(tier)):
            self.judges.want()
