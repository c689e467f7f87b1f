"""Client of a Duix.Avatar (HeyGem) server: lay out the inputs, submit, look until it is done, take the video over."""

from __future__ import annotations

import asyncio
import math
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.render.contract import Phase, Progress, RenderJob
from app.render.duix.exchange import Exchange, default_result
from app.render.duix.options import DuixOptions, DuixSettings
from app.render.duix.protocol import BUSY, FAILED, RUNNING, Standing, accepted, failed, standing
from app.render.remote.errors import surely_not_taken
from app.render.remote.peer import Context, Peer
from app.render.remote.renderer import RemoteRenderer
from app.render.remote.waiting import Patience
from app.render.vanished import Presence
from app.retry.taxonomy import CodedError, FailureCode

_APPEARS_S = 10.0
"""A result that is reported may show up this much later in a folder mounted over a network."""

_SETTLES_S = 5.0
"""The server tells a task's end before it has tidied up, and calls itself busy until it has."""


class DuixRenderer(RemoteRenderer[DuixSettings]):
    """Lets a Duix server render. The server has one task at a time and can neither cancel nor list.

    A cancelled render goes on there: its inputs stay, marked, until the server is done with it; meanwhile new tasks
    are told that it is busy without asking it to take them.
    """

    name = "duix"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings`: those of `DuixSettings`."""
        super().__init__(settings, DuixSettings)
        self._exchange = Exchange(self.own.shared_dir, self.own.server_dir)
        self._ended = -math.inf
        """When the last task of this process was told to be over, on the monotonic clock."""

    async def remote(
        self, job: RenderJob, progress: Progress, peer: Peer, context: Context, result: Path
    ) -> dict[str, Any]:
        """See `RemoteRenderer.remote`."""
        options = DuixOptions.model_validate(dict(job.options))
        await self._settle_abandoned(peer, context)
        code = uuid.uuid4().hex
        progress.report(Phase.FETCH, 0, 0)
        video, speech = self._exchange.put(code, job.source, job.audio, progress)
        taken, theirs = False, True  # theirs: it may be rendering there, also where a submission's answer was lost
        try:
            first = await self._submit(peer, context, code, video, speech, options)
            taken = True
            found = await self._wait(peer, context, progress, code, first)
            theirs = False
            await self._take(peer, context, progress, code, found, result)
        except CodedError as error:
            theirs = theirs and not (_is_over(error) if taken else _is_refused(error))
            raise
        finally:
            if theirs:
                self._exchange.abandon(code)
            else:
                self._exchange.remove(code)
        return {"remote_task": code}

    async def _submit(
        self, peer: Peer, context: Context, code: str, video: str, speech: str, options: DuixOptions
    ) -> Standing | None:
        """Have the server take the task. What it says of the task, if it had to be asked: its answer was lost."""
        order = {
            "code": code,
            "video_url": video,
            "audio_url": speech,
            "chaofen": int(options.super_resolution),
            "watermark_switch": 0,
            "pn": 1,
        }
        while True:
            try:
                accepted(await peer.call(context, "submit", "POST", "/easy/submit", repeatable=False, json=order))
            except CodedError as error:
                if not _is_refused(error):
                    with suppress(CodedError):  # the first error says more
                        if (found := await self._look(peer, context, code)) is not None:
                            return found
                    raise
                if error.failure.detail.get("answer") != BUSY or time.monotonic() >= self._ended + _SETTLES_S:
                    raise
                await asyncio.sleep(min(self.own.poll_s, 0.5))
            else:
                return None

    async def _wait(
        self, peer: Peer, context: Context, progress: Progress, code: str, first: Standing | None
    ) -> Standing | None:
        """Look until the task has succeeded; `first` was the first look. None: its record is gone and its video there.

        The server forgets a task with the first answer that tells its end, also if that answer is lost.
        """
        own = self.own
        what = f"Task {code} of the Duix server"
        presence = Presence(what, own.lost_s)
        patience = Patience(what, unreachable_s=own.unreachable_s, silence_s=own.silence_s)
        reached = 0
        while True:
            try:
                found, first = first or await self._look(peer, context, code), None
            except CodedError as error:
                patience.unanswered(error)
            else:
                # It moves in steps of tens of percent: that it answers is its sign of life, `silence_s` its limit.
                reached = reached if found is None else max(reached, min(found.progress, 99))
                progress.report(Phase.RENDER, reached, 100)
                if found is None:
                    patience.answered(None, "the server does not know it")
                    if self._exchange.result(code) is not None:
                        return None
                    presence.missing(task=code)
                else:
                    presence.seen()
                    if found.status != RUNNING:
                        self._ended = time.monotonic()
                    if found.status == FAILED:
                        raise failed(code, found, reached)
                    if found.status != RUNNING:
                        return found
                    words = f"{found.progress} %, {found.words or 'no message'}"
                    patience.answered((found.progress, found.words), words)
            await asyncio.sleep(own.poll_s)

    async def _look(self, peer: Peer, context: Context, code: str) -> Standing | None:
        return standing(await peer.call(context, "query", "GET", "/easy/query", params={"code": code}))

    async def _take(
        self, peer: Peer, context: Context, progress: Progress, code: str, found: Standing | None, result: Path
    ) -> None:
        """Put the video that the server made at `result`."""
        named = (found.result if found else "") or default_result(code)
        where = self._address(named)
        if where:
            report = lambda done, total: progress.report(Phase.FETCH, done, total)  # noqa: E731
            await peer.fetch(context, "result", where, result, report)
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + _APPEARS_S
        while (path := self._exchange.result(code, named)) is None:
            if loop.time() >= end:
                raise CodedError(
                    FailureCode.OUTPUT_INVALID,
                    f"The Duix server says that task {code} is done, but {named} is not whole in the shared folder.",
                    "Check that `shared_dir` and `server_dir` of the tier name the same folder, or set `result_url`.",
                    reason="no_result",
                    check="exists",
                )
            progress.report(Phase.FETCH, 0, 0)
            await asyncio.sleep(min(self.own.poll_s, 0.5))
        shutil.copyfile(path, result)
        path.unlink(missing_ok=True)

    def _address(self, named: str) -> str:
        """The URL to fetch a result from; empty where it is read from the shared folder."""
        base = self.own.result_url
        if "://" in named:
            known = {urlsplit(url).hostname for url in (self.own.url, base) if url}
            if urlsplit(named).scheme not in ("http", "https") or urlsplit(named).hostname not in known:
                message = f"The Duix server names a result on another host: {named[:200]!r}."
                raise CodedError(FailureCode.UPSTREAM_REJECTED, message, reason="outside")
            return named
        return "" if base is None else f"{base}/{named.removeprefix(f'{self.own.server_dir}/temp').lstrip('/')}"

    async def _settle_abandoned(self, peer: Peer, context: Context) -> None:
        """Forget renders that nobody waits for and that are over. Raises UPSTREAM_BUSY while one still runs."""
        self._exchange.remove_stale(self.own.stale_s)
        for code in self._exchange.abandoned():
            found = await self._look(peer, context, code)
            if found is not None and found.status == RUNNING:
                message = f"The Duix server still renders task {code}, which was given up ({found.progress} %)."
                raise CodedError(FailureCode.UPSTREAM_BUSY, message, reason="abandoned", task=code)
            self._exchange.remove(code)


def _is_refused(error: CodedError) -> bool:
    """Whether a submission that failed was surely not taken."""
    return "answer" in error.failure.detail or surely_not_taken(error)


def _is_over(error: CodedError) -> bool:
    """Whether a task that was taken has surely ended there."""
    return error.code is FailureCode.TASK_LOST or error.failure.detail.get("reason") == "failed"
