"""The lease of a running attempt: renewed while the attempt is well, and the first to learn that it is not current."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from app.health.clocks import Look
from app.render.contract import Phase
from app.render.vanished import Presence
from app.retry.taxonomy import CodedError, Failure, FailureCode
from app.store.errors import StaleClaim
from app.store.interface import Store
from app.store.records import Claim
from app.worker.orders import Orders

log = structlog.get_logger(__name__)


class Lease:
    """Of one claim. What it learns from the record becomes an order to the attempt."""

    def __init__(
        self,
        claim: Claim,
        orders: Orders,
        store: Store,
        *,
        look: Callable[[], Look],
        lease_s: float,
        task_lost_s: float,
        progress_notice_s: float,
    ) -> None:
        """`task_lost_s`: how long the record may be missing. `progress_notice_s`: see `AttemptSettings`."""
        self._claim = claim
        self._orders = orders
        self._store = store
        self._look = look
        self._lease_s = lease_s
        self._task_lost_s = task_lost_s
        self._progress_notice_s = progress_notice_s
        self._record = Presence(f"The record of task {claim.task.id}", task_lost_s)

    def renew(self) -> None:
        """In the monitor's thread. Raises `StoreUnavailable`, after which the render just goes on."""
        try:
            task = self._store.renew(self._claim, lease_s=self._lease_s)
        except StaleClaim as error:
            self._refused(error)
            return
        self._record.seen()
        if task.cancel_requested_at is not None:
            self._orders.end(Failure(FailureCode.CANCELLED))
        look = self._look()
        if look.phase == Phase.RENDER:
            # Other phases count other things: only frames grow from one notice to the next.
            self._store.outbox.progress(
                self._claim, look.done, look.total, look.phase, at_least_s=self._progress_notice_s
            )

    def _refused(self, error: StaleClaim) -> None:
        """The claim is not current. Another attempt may be: then this one ends now. A record may also be gone."""
        if self._store.get(self._claim.task.id) is not None:
            log.warning("attempt_superseded", reason=str(error))
            self._orders.end(Failure(FailureCode.INTERRUPTED, str(error)))
            return
        log.warning("task_record_missing", lost_after_s=self._task_lost_s)
        try:
            self._record.missing()
        except CodedError as lost:
            self._orders.end(lost.failure)
