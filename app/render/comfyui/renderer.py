"""Client of a ComfyUI server: upload the inputs, queue the workflow, follow it, fetch its video."""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from app.media.audio_in import audio_length
from app.media.image import write_even_png
from app.media.pictures import is_picture
from app.media.speech_wav import RATE, write_speech_wav
from app.render.comfyui.listener import ProgressListener
from app.render.comfyui.options import ComfyOptions, ComfySettings
from app.render.comfyui.protocol import check, check_taken, output_of, place, prompt_id, rejection_of, uploaded
from app.render.comfyui.workflow import fill, load_workflow, names
from app.render.contract import Phase, Progress, RenderJob
from app.render.remote.errors import surely_not_taken
from app.render.remote.peer import Context, Peer, Refused
from app.render.remote.renderer import RemoteRenderer
from app.render.remote.waiting import Patience, to_its_end
from app.render.vanished import Presence
from app.retry.taxonomy import CodedError, FailureCode

_FOLDER = "greenroom"
"""Our uploads' subfolder on the server."""
_TIDY_S = 1.5
"""For what a cancelled render still asks of the server: it has `cancel_grace_s` in all."""
_TIDY_LOOK_S = 0.1


class ComfyRenderer(RemoteRenderer[ComfySettings]):
    """Lets a ComfyUI server render. A cancelled task's prompt is taken from its queue, or interrupted if it runs."""

    name = "comfyui"

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings`: those of `ComfySettings`."""
        super().__init__(settings, ComfySettings)

    async def remote(
        self, job: RenderJob, progress: Progress, peer: Peer, context: Context, result: Path
    ) -> dict[str, Any]:
        """See `RemoteRenderer.remote`."""
        workflow = load_workflow(self.own.workflow)
        client = uuid.uuid4().hex
        listener = ProgressListener(self.own, client, workflow)
        progress.report(Phase.FETCH, 0, 0)
        filled = fill(workflow, await self._values(job, progress, peer, context, names(workflow), client))
        listening = asyncio.ensure_future(listener.listen())
        # Chosen here, so that a prompt whose acceptance was not heard can be found, or withdrawn.
        prompt = str(uuid.uuid4())
        queueing = asyncio.ensure_future(self._queue(peer, context, filled, client, prompt))
        try:
            # A cancel must not cut the submission off: servers of old choose the id themselves.
            answer = await asyncio.shield(queueing)
            prompt = prompt_id(answer)
            check_taken(answer)
            listener.follow(prompt)
            record = await self._wait(peer, context, progress, prompt, listener)
            check(record)
            await self._fetch(peer, context, progress, record, result)
        except BaseException:
            await to_its_end(self._withdraw(peer, context, queueing, prompt))
            raise
        finally:
            listening.cancel()
            await asyncio.wait({listening})
        await self._forget(peer, context, prompt)
        return {"remote_task": prompt}

    async def _values(
        self, job: RenderJob, progress: Progress, peer: Peer, context: Context, used: set[str], client: str
    ) -> dict[str, Any]:
        """What the placeholders stand for; the inputs are uploaded for it."""
        options = ComfyOptions.model_validate(dict(job.options))
        seconds = audio_length(job.audio, RATE) / RATE
        values: dict[str, Any] = {
            "fps": options.fps,
            "seconds": seconds,
            "frames": max(1, math.ceil(seconds * options.fps)),
            "seed": secrets.randbelow(2**53) if options.seed is None else options.seed,
            # The server answers an equal prompt from its cache, with the old file: no two may be equal.
            "prefix": f"{_FOLDER}/{client}",
        }
        with job.source.open("rb") as file:
            kind = "image" if is_picture(file.read(64)) else "video"
        if kind not in used:
            message = f"The workflow {self.own.workflow.name} takes no {kind}: it has no placeholder {{{kind}}}."
            raise CodedError(FailureCode.UPSTREAM_REJECTED, message, "Set `sources` of the tier.", reason="workflow")
        source, suffix = job.source, ".mp4"
        if kind == "image":
            # Even sides: the encoder of the server's video nodes refuses odd ones.
            source, suffix = job.output_dir / "sent.png", ".png"
            values["width"], values["height"] = write_even_png(job.source, source, options.max_side)
        values[kind] = await self._upload(peer, context, source, suffix)
        if kind == "image":
            source.unlink()
        progress.report(Phase.FETCH, 0, 0)
        speech = job.output_dir / "sent.wav"
        write_speech_wav(job.audio, speech, partial(progress.report, Phase.FETCH))
        values["audio"] = await self._upload(peer, context, speech, ".wav")
        speech.unlink()
        progress.report(Phase.FETCH, 0, 0)
        if missing := used - values.keys():
            message = f"The workflow asks for {', '.join(sorted(missing))}, which a {kind} does not tell."
            raise CodedError(FailureCode.UPSTREAM_REJECTED, message, reason="workflow")
        return values

    async def _upload(self, peer: Peer, context: Context, path: Path, suffix: str) -> str:
        """Send a file; the name that nodes know it by. Named by its content: the server keeps equal ones once."""
        with path.open("rb") as file:
            digest = await asyncio.to_thread(hashlib.file_digest, file, "sha256")
            answer = await peer.call(
                context,
                "upload",
                "POST",
                "/upload/image",  # of any file, in spite of its name
                allowed_s=self.own.transfer_s,
                files={"image": (digest.hexdigest()[:32] + suffix, file, "application/octet-stream")},
                data={"type": "input", "subfolder": _FOLDER},
            )
        return uploaded(answer)

    async def _queue(
        self, peer: Peer, context: Context, workflow: dict[str, Any], client: str, prompt: str
    ) -> dict[str, Any]:
        """What the server answers to the prompt, or would have: if its answer is lost, whether it is there tells."""
        order = {"prompt": workflow, "client_id": client, "prompt_id": prompt}
        try:
            return await peer.call(context, "prompt", "POST", "/prompt", repeatable=False, json=order)
        except CodedError as error:
            if isinstance(error, Refused) and (told := rejection_of(error.body)) is not None:
                raise told from error
            if surely_not_taken(error):
                raise
            with suppress(CodedError):  # the first error says more
                if await self._place(peer, context, prompt) or await self._record(peer, context, prompt):
                    return {"prompt_id": prompt}
            raise

    async def _wait(
        self, peer: Peer, context: Context, progress: Progress, prompt: str, listener: ProgressListener
    ) -> dict[str, Any]:
        """Look until the prompt is in the history; its record. The WebSocket only says when looking pays."""
        own = self.own
        what = f"Prompt {prompt} of the ComfyUI server"
        presence = Presence(what, own.lost_s)
        patience = Patience(what, unreachable_s=own.unreachable_s, silence_s=own.silence_s)
        reached = 0
        while True:
            try:
                record = await self._record(peer, context, prompt)
                # An empty history says nothing: waiting, running, unknown and deleted prompts all have none.
                where = "" if record else await self._place(peer, context, prompt)
                if not record and not where:  # it may have ended between the two looks
                    record = await self._record(peer, context, prompt)
            except CodedError as error:
                patience.unanswered(error)
            else:
                reached = max(reached, min(int(listener.fraction * 100), 99))
                progress.report(Phase.RENDER, reached, 100)
                if record:
                    return record
                if where == "pending":
                    # The queue is the server's own; how long that may take, the tier's `time_limit_s` says.
                    presence.seen()
                    patience.answered(object(), "pending")
                elif where:
                    presence.seen()
                    patience.answered(listener.messages, listener.words or "running")
                else:
                    patience.answered(None, "neither queued nor done")
                    presence.missing(task=prompt)
            with suppress(TimeoutError):
                await asyncio.wait_for(listener.changed.wait(), own.poll_s)
                listener.changed.clear()

    async def _record(self, peer: Peer, context: Context, prompt: str) -> dict[str, Any]:
        record = (await peer.call(context, "history", "GET", f"/history/{prompt}")).get(prompt)
        return record if isinstance(record, dict) else {}

    async def _place(self, peer: Peer, context: Context, prompt: str) -> str:
        return place(await peer.call(context, "queue", "GET", "/queue"), prompt)

    async def _fetch(
        self, peer: Peer, context: Context, progress: Progress, record: dict[str, Any], result: Path
    ) -> None:
        file = output_of(record, self.own.output_node)

        def report(done: int, total: int) -> None:
            progress.report(Phase.FETCH, done, total)

        await peer.fetch(context, "view", "/view", result, report, params=file.query())

    async def _forget(self, peer: Peer, context: Context, prompt: str) -> None:
        """Remove the prompt from the server's history, which lives in its memory; best effort."""
        with suppress(CodedError):
            await peer.call(context, "forget", "POST", "/history", allowed_s=_TIDY_S, json={"delete": [prompt]})

    async def _withdraw(
        self, peer: Peer, context: Context, queueing: asyncio.Future[dict[str, Any]], prompt: str
    ) -> None:
        """End this prompt, and no other, on the server; best effort. `/interrupt` answers 200 whatever it did."""
        with suppress(CodedError, TimeoutError):
            async with asyncio.timeout(_TIDY_S):
                try:
                    prompt = prompt_id(await queueing)
                except CodedError as error:
                    if error.failure.detail.get("reason") == "workflow" or surely_not_taken(error):
                        return
                where = await self._place(peer, context, prompt)
                if where == "pending":
                    await peer.call(context, "delete", "POST", "/queue", json={"delete": [prompt]})
                    where = await self._place(peer, context, prompt)
                if where == "running":
                    # Servers of old know no id here and interrupt what runs, which is this one.
                    await peer.call(context, "interrupt", "POST", "/interrupt", json={"prompt_id": prompt})
                while where == "running":  # it ends between two nodes; only then it has a record to forget
                    await asyncio.sleep(_TIDY_LOOK_S)
                    where = await self._place(peer, context, prompt)
                await self._forget(peer, context, prompt)
