"""Progress of one prompt over ComfyUI's WebSocket. It only makes news faster: without it, polling tells the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import websockets
from websockets.asyncio.client import connect

from app.render.remote.settings import RemoteSettings

_ENDS = frozenset({"execution_success", "execution_error", "execution_interrupted"})
_LARGEST = 16 * 1024**2
"""Bytes of a message: previews are pictures."""
_AGAIN_S = 2.0


class ProgressListener:
    """Listens as `client_id`. `changed` is set with every word of the prompt, `fraction` is how far its nodes are."""

    def __init__(self, settings: RemoteSettings, client_id: str, nodes: Iterable[str]) -> None:
        """`nodes`: ids of the workflow's nodes. Others, which nodes of some kinds put in their place, do not count."""
        self._settings = settings
        self._url = "ws" + settings.url.removeprefix("http") + "/ws?" + urlencode({"clientId": client_id})
        self._reached = dict.fromkeys(nodes, 0.0)
        self._prompt = ""
        self._node = ""
        self._tells_states = False
        self.changed = asyncio.Event()
        self.words = ""
        """The last word, for the silence clock: any other word is a change."""
        self.messages = 0
        """Messages of this prompt so far."""

    def follow(self, prompt: str) -> None:
        """From now on, tell of this prompt."""
        self._prompt = prompt

    @property
    def fraction(self) -> float:
        """Between 0 and 1, as far as it is known."""
        return sum(self._reached.values()) / max(len(self._reached), 1)

    async def listen(self) -> None:
        """Listen until cancelled; connect again where the connection ends."""
        own = self._settings
        headers = {"Authorization": f"Bearer {own.token}"} if own.token else None
        while True:
            try:
                async with connect(
                    self._url,
                    additional_headers=headers,
                    open_timeout=own.connect_s + own.header_s,
                    close_timeout=0.2,
                    max_size=_LARGEST,
                    proxy=None,
                ) as socket:
                    async for message in socket:
                        if isinstance(message, str):
                            self._hear(message)
            except (OSError, TimeoutError, websockets.WebSocketException):
                pass  # the looks at history and queue go on
            await asyncio.sleep(_AGAIN_S)

    def _hear(self, message: str) -> None:
        try:
            told = json.loads(message)
        except (ValueError, RecursionError):
            return
        data = told.get("data") if isinstance(told, Mapping) else None
        if not isinstance(data, Mapping) or not self._prompt or data.get("prompt_id") != self._prompt:
            return
        kind = str(told.get("type"))
        self._count(kind, data)
        self.words = f"{kind}, node {data.get('node') or '-'}, {self.fraction:.0%}"
        self.messages += 1
        if kind in _ENDS or (kind == "executing" and data.get("node") is None):
            self.changed.set()

    def _count(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "progress_state" and isinstance(data.get("nodes"), Mapping):
            self._tells_states = True  # all nodes in every message: nothing is missed before the connection stands
            for node, state in data["nodes"].items():
                if isinstance(state, Mapping):
                    self._reach(node, 1.0 if state.get("state") == "finished" else _share(state))
        elif kind == "execution_cached" and isinstance(data.get("nodes"), list):
            for node in data["nodes"]:
                self._reach(node, 1.0)
        elif kind == "executed":
            self._reach(data.get("node"), 1.0)
        elif kind == "executing":
            if not self._tells_states:
                self._reach(self._node, 1.0)  # servers of old tell only nodes with an output of their own as executed
            self._node = str(data.get("node"))
        elif kind == "progress":
            self._reach(data.get("node") or self._node, _share(data))

    def _reach(self, node: object, share: float) -> None:
        if str(node) in self._reached:
            self._reached[str(node)] = share


def _share(told: Mapping[str, Any]) -> float:
    value, most = told.get("value"), told.get("max")
    if isinstance(value, int | float) and isinstance(most, int | float) and value > 0 and most > 0:
        return 1.0 if value >= most else value / most
    return 0.0  # also of NaN, which a server written in Python may say
