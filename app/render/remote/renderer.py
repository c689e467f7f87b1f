"""The frame of a renderer whose work another server does: its event loop, its connections, and its result as ours."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from app.media.adopt import adopt
from app.render.contract import Phase, Progress, Renderer, RenderJob, RenderResult
from app.render.remote.peer import Context, Peer
from app.render.remote.settings import RemoteSettings
from app.render.remote.waiting import until_cancelled

Settings = TypeVar("Settings", bound=RemoteSettings)


class RemoteRenderer(Renderer, Generic[Settings]):
    """Lets a server render. Its process keeps one event loop and one pool of connections for all its renders."""

    def __init__(self, settings: Mapping[str, Any], model: type[Settings]) -> None:
        """`model` takes what it knows of `settings`; the rest is what the service gives all renderers."""
        super().__init__(settings)
        own = {name: value for name, value in settings.items() if name in model.model_fields}
        self.own: Settings = model.model_validate(own)
        self._runner = asyncio.Runner()
        self._peer: Peer | None = None

    def load(self, device: str) -> None:
        """Nothing is loaded and nobody is called: whether the server is there shows with the first task."""

    def render(self, job: RenderJob, progress: Progress) -> RenderResult:
        """Have `job` rendered, and make what comes back a result of ours.

        Raises CodedError UPSTREAM_... for what the server does, TASK_LOST where it forgets the render, OUTPUT_INVALID
        for a result that is no video of the speech's length.
        """
        began = time.monotonic()
        raw = job.output_dir / "received"
        facts = self._runner.run(until_cancelled(self._remote(job, progress, raw), progress))
        received = time.monotonic()
        out = job.output_dir / f"{self.name}.mp4"
        made = adopt(raw, out, job.audio, lambda done, total: progress.report(Phase.ENCODE, done, total))
        raw.unlink()
        ended = time.monotonic()
        return RenderResult(
            path=out,
            frames=made.frames,
            fps=float(made.rate),
            duration_s=float(made.frames / made.rate),
            width=made.width,
            height=made.height,
            seconds=ended - began,
            stages={"remote": received - began, "encode": ended - received},
            facts={**facts, "pictures_kept": made.kept},
        )

    def close(self) -> None:
        """Close the connections."""
        if self._peer is not None:
            self._runner.run(self._peer.close())
        self._runner.close()

    async def _remote(self, job: RenderJob, progress: Progress, raw: Path) -> dict[str, Any]:
        self._peer = self._peer or Peer(self.own)  # connections belong to the loop that runs now
        context = Context(progress.called, job.traceparent)
        await self._peer.reach(context)
        return await self.remote(job, progress, self._peer, context, raw)

    @abstractmethod
    async def remote(
        self, job: RenderJob, progress: Progress, peer: Peer, context: Context, result: Path
    ) -> dict[str, Any]:
        """Have the server render `job` and put what it made at `result`. Returns facts for the record.

        It is cancelled where it waits when the task is, and has `cancel_grace_s` of the service to tidy up.
        """
