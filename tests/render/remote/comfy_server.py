"""A server that speaks ComfyUI's protocol over HTTP and WebSocket; what its nodes do is one copy of a file.

Routes, answers, and the order of messages are those that ComfyUI 0.3.64 gave when it was watched;
`test_comfyui_real.py` runs the same renderer against a real one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import av
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

_OUTPUT_NODES = {"SaveVideo", "PreviewImage"}
_NODES = _OUTPUT_NODES | {"LoadImage", "LoadVideo", "LoadAudio", "EmptyImage", "RepeatImageBatch", "CreateVideo"}


class ComfyServer:
    """Runs one prompt at a time, a step per `step_s`; `held` keeps the running one where it is."""

    def __init__(self, folder: Path, result: Path) -> None:
        self.folder = folder
        self.made = result
        folder.mkdir()
        self.step_s = 0.02
        self.held = False
        self.answer_s = 0.0
        """How long it takes to tell its queue."""
        self.sockets = True
        """Whether there is a WebSocket."""
        self.states = True
        """Whether messages tell the states of all nodes at once, as servers since summer 2025 do."""
        self.busy_uploads = 0
        """Answer so many uploads with 503."""
        self.largest_upload = 100 * 1024**2
        self.node_errors: dict[str, Any] | None = None
        """Refuse prompts with these."""
        self.some_outputs_work = False
        """Queue prompts in spite of `node_errors`, without the outputs that depend on them."""
        self.answers_lost = 0
        """Take so many prompts without an answer."""
        self.error: dict[str, Any] | None = None
        """What prompts end with in place of a video."""
        self.interrupted_by_others = False
        self.forgets = False
        """A prompt ends without a trace."""
        self.outputs: dict[str, Any] | None = None
        self.prompts: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.pending: list[str] = []
        self.running: str = ""
        self.history: dict[str, Any] = {}
        self.interrupts: list[Any] = []
        self._stop_running = False
        self._clients: dict[str, WebSocket] = {}
        self._orders: dict[str, dict[str, Any]] = {}
        self._cache: dict[str, dict[str, Any]] = {}
        self._app = Starlette(
            routes=[
                Route("/upload/image", self._upload, methods=["POST"]),
                Route("/prompt", self._prompt, methods=["POST"]),
                Route("/history/{prompt_id}", self._history),
                Route("/history", self._forget, methods=["POST"]),
                Route("/queue", self._queue),
                Route("/queue", self._delete, methods=["POST"]),
                Route("/interrupt", self._interrupt, methods=["POST"]),
                Route("/view", self._view),
                WebSocketRoute("/ws", self._socket),
            ]
        )
        self._port = 0
        self.start()

    def start(self) -> None:
        """Begin to serve; again after a `close`, on the same port."""
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(self._app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listener)), daemon=True)
        self._thread.start()

    async def _serve(self, listener: socket.socket) -> None:
        worker = asyncio.ensure_future(self._work())
        await self._server.serve([listener])
        worker.cancel()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def die(self) -> None:
        """End as a killed server does: its queue, history and cache were in its memory; uploads and results stay."""
        self.close()
        self.pending, self.running = [], ""
        self.history, self._cache, self._clients = {}, {}, {}

    def count(self, call: str) -> int:
        return self.calls.count(call)

    def queue_of_another(self, nodes: int = 1) -> str:
        """Put somebody else's prompt into the queue; its id."""
        prompt = str(uuid.uuid4())
        order = {str(number): {"class_type": "EmptyImage", "inputs": {}} for number in range(nodes)}
        self._orders[prompt] = {"prompt": order}
        self.pending.append(prompt)
        return prompt

    async def _upload(self, request: Request) -> Response:
        self.calls.append("upload")
        if int(request.headers["content-length"]) > self.largest_upload:
            return PlainTextResponse(f"Maximum request body size {self.largest_upload} exceeded.", 413)
        form = await request.form()
        if self.busy_uploads:
            self.busy_uploads -= 1
            return Response(status_code=503)
        file, folder = form["image"], str(form.get("subfolder", ""))
        stem, dot, suffix = file.filename.rpartition(".")
        content, name, number = await file.read(), file.filename, 0
        # Kept once if it is equal; if not, neither is lost.
        while self.uploads.setdefault(f"{folder}/{name}", content) != content:
            number += 1
            name = f"{stem} ({number}){dot}{suffix}"
        return JSONResponse({"name": name, "subfolder": folder, "type": form.get("type", "input")})

    async def _prompt(self, request: Request) -> Response:
        self.calls.append("prompt")
        order = await request.json()
        self.prompts.append(order)
        for number, node in order["prompt"].items():
            if (kind := node["class_type"]) not in _NODES:
                message = f"Cannot execute because node {kind} does not exist."
                return _refusal("invalid_prompt", message, f"Node ID '#{number}'", {})
        errors = self.node_errors or self._errors(order["prompt"])
        if errors and not self.some_outputs_work:
            return _refusal("prompt_outputs_failed_validation", "Prompt outputs failed validation", "", errors)
        prompt = str(order.get("prompt_id", uuid.uuid4()))
        self._orders[prompt] = order
        self.pending.append(prompt)
        if self.answers_lost:
            self.answers_lost -= 1
            raise ConnectionError  # the connection is dropped
        return JSONResponse({"prompt_id": prompt, "number": len(self.prompts), "node_errors": errors})

    def _errors(self, nodes: dict[str, Any]) -> dict[str, Any]:
        """What the nodes' own checks say."""
        found: dict[str, Any] = {}
        for number, node in nodes.items():
            inputs, error = node["inputs"], None
            for name in ("image", "audio", "file"):
                if isinstance(inputs.get(name), str) and inputs[name] not in self.uploads:
                    details = f"{name} - Invalid {name} file: {inputs[name]}"
                    error = ("custom_validation_failed", "Custom validation failed for node", details, name)
            if isinstance(amount := inputs.get("amount"), int) and amount > 4096:
                message = f"Value {amount} bigger than max of 4096"
                error = ("value_bigger_than_max", message, "amount", "amount")
            if error:
                told = dict(zip(("type", "message", "details"), error, strict=False))
                told["extra_info"] = {"input_name": error[3]}
                found[number] = {"errors": [told], "dependent_outputs": ["5"], "class_type": node["class_type"]}
        return found

    async def _history(self, request: Request) -> Response:
        self.calls.append("history")
        prompt = request.path_params["prompt_id"]
        return JSONResponse({prompt: self.history[prompt]} if prompt in self.history else {})

    async def _forget(self, request: Request) -> Response:
        for prompt in (await request.json())["delete"]:
            self.history.pop(prompt, None)
        return Response()

    async def _queue(self, _request: Request) -> Response:
        self.calls.append("queue")
        await asyncio.sleep(self.answer_s)
        return JSONResponse(
            {
                "queue_running": [self._item(self.running)] if self.running else [],
                "queue_pending": [self._item(prompt) for prompt in self.pending],
            }
        )

    def _item(self, prompt: str) -> list[Any]:
        order = self._orders[prompt]
        outputs = [number for number, node in order["prompt"].items() if node["class_type"] in _OUTPUT_NODES]
        extra = {"client_id": order["client_id"]} if "client_id" in order else {}
        return [list(self._orders).index(prompt), prompt, order["prompt"], extra, outputs]

    async def _delete(self, request: Request) -> Response:
        for prompt in (await request.json()).get("delete", []):
            if prompt in self.pending:
                self.pending.remove(prompt)
        return Response()

    async def _interrupt(self, request: Request) -> Response:
        asked = await request.json()
        self.interrupts.append(asked)
        if asked.get("prompt_id", self.running) == self.running:
            self._stop_running = True
        return Response()

    async def _view(self, request: Request) -> Response:
        self.calls.append("view")
        path = self.folder / request.query_params.get("subfolder", "") / request.query_params["filename"]
        return FileResponse(path, media_type="video/mp4") if path.is_file() else Response(status_code=404)

    async def _socket(self, socket: WebSocket) -> None:
        if not self.sockets:
            await socket.close()
            return
        await socket.accept()
        client = socket.query_params["clientId"]
        self._clients[client] = socket
        state = {"status": {"exec_info": {"queue_remaining": len(self.pending)}}, "sid": client}
        await socket.send_json({"type": "status", "data": state})
        await socket.send_json({"type": "executing", "data": {"node": "1"}})  # of whatever runs, and not whose
        await socket.send_bytes(b"\x00\x00\x00\x01preview")
        await socket.send_text("no json")
        try:
            while True:
                await socket.receive()
        except (WebSocketDisconnect, RuntimeError):
            self._clients.pop(client, None)

    async def _say(self, prompt: str, kind: str, **data: Any) -> dict[str, Any]:
        socket = self._clients.get(self._orders[prompt].get("client_id", ""))
        told = {"prompt_id": prompt, **data}
        if socket is not None:
            await socket.send_json({"type": kind, "data": told})
        return told

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self.step_s)
            if not self.pending:
                continue
            prompt = self.running = self.pending.pop(0)
            self._stop_running = False
            record = await self._execute(prompt)
            await asyncio.sleep(self.step_s)  # its messages come before its record, and the last one after it
            if not self.forgets:
                self.history[prompt] = record
            self.running = ""
            await self._say(prompt, "executing", node=None)

    async def _execute(self, prompt: str) -> dict[str, Any]:
        order = self._orders[prompt]["prompt"]
        messages: list[Any] = []

        async def note(kind: str, **data: Any) -> None:
            messages.append([kind, await self._say(prompt, kind, **data, timestamp=int(time.time() * 1000))])

        await note("execution_start")
        key = json.dumps(order, sort_keys=True)
        known = self._cache.get(key)
        await note("execution_cached", nodes=[] if known is None else list(order))
        done: list[str] = []
        for node in order if known is None else ():
            await self._state(prompt, done, node, 0)
            await self._say(prompt, "executing", node=node, display_node=node)
            for value in (1, 2):
                await asyncio.sleep(self.step_s)
                await self._state(prompt, done, node, value)
                await self._say(prompt, "progress", node=node, value=value, max=2)
            while self.held and not self._stop_running:
                await asyncio.sleep(self.step_s)
            facts = {"node_id": node, "node_type": order[node]["class_type"], "executed": done}
            if self._stop_running or self.interrupted_by_others:
                await note("execution_interrupted", **facts)
                return self._record(prompt, {}, "error", messages)
            if self.error is not None and node == list(order)[-1]:
                await note("execution_error", **(facts | self.error))
                return self._record(prompt, {}, "error", messages)
            done.append(node)
        outputs = self._cache[key] = self._save(order, key) if known is None else known
        for node, output in outputs.items():
            await self._say(prompt, "executed", node=node, display_node=node, output=output)
        await note("execution_success")
        return self._record(prompt, outputs, "success", messages)

    async def _state(self, prompt: str, done: list[str], node: str, value: int) -> None:
        if self.states:
            finished = {name: {"value": 1, "max": 1, "state": "finished", "node_id": name} for name in done}
            running = {"value": value, "max": 2, "state": "running", "node_id": node}
            await self._say(prompt, "progress_state", nodes={**finished, node: running})

    def _save(self, order: dict[str, Any], key: str) -> dict[str, Any]:
        node, save = next(((n, v) for n, v in order.items() if v["class_type"] == "SaveVideo"), ("", {}))
        if not node:
            return {}
        name = f"{save['inputs']['filename_prefix']}_00001_.mp4"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _with_prompt(self.made, path, key)
        folder, _, file = name.rpartition("/")
        shown = {"images": [{"filename": file, "subfolder": folder, "type": "output"}], "animated": [True]}
        return self.outputs if self.outputs is not None else {node: shown}

    def _record(self, prompt: str, outputs: Any, status: str, messages: Any) -> dict[str, Any]:
        told = {"status_str": status, "completed": status == "success", "messages": messages}
        meta = {node: {"node_id": node, "display_node": node, "real_node_id": node} for node in outputs}
        return {"prompt": self._item(prompt), "outputs": outputs, "status": told, "meta": meta}


def _refusal(kind: str, message: str, details: str, node_errors: Any) -> Response:
    error = {"type": kind, "message": message, "details": details, "extra_info": {}}
    return JSONResponse({"error": error, "node_errors": node_errors}, 400)


def _with_prompt(source: Path, target: Path, prompt: str) -> None:
    """The video with the whole prompt as metadata and its index at the end, as SaveVideo writes it."""
    with (
        av.open(str(source)) as before,
        av.open(str(target), "w", format="mp4", options={"movflags": "use_metadata_tags"}) as after,
    ):
        after.metadata["prompt"] = prompt
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        for packet in before.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                after.mux(packet)
