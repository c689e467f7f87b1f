"""Options, settings and capabilities of renderer `duix`. Imports neither torch nor a codec: the API reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.render.contract import Capabilities
from app.render.remote.settings import BaseUrl, RemoteSettings, Seconds


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must be an absolute path of the server")
    return path.rstrip("/") or "/"


class DuixOptions(BaseModel):
    """What a caller can set in `options` for renderer `duix`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    super_resolution: bool = False
    """Let the server sharpen the face (its `chaofen`)."""


class DuixSettings(RemoteSettings):
    """What an operator can set in a tier of renderer `duix`. `url` is the server's, e.g. `http://10.0.0.5:8383`."""

    shared_dir: Path
    """The folder here that the server has as `server_dir`: its inputs are put there, its results lie there."""
    server_dir: Annotated[str, AfterValidator(_absolute)] = "/code/data"
    """The same folder as the server names it."""
    result_url: BaseUrl | None = None
    """Where the server's `temp` folder is served over HTTP, if results shall be fetched instead of read."""
    silence_s: Seconds = 1800.0
    """Between 20 and 90 percent, which is nearly all of a render, the server tells nothing."""
    stale_s: Annotated[float, Field(gt=0)] = 86_400.0
    """Inputs of renders that nobody waited for to the end (the worker was killed) are removed after so long."""


CAPABILITIES = Capabilities(
    sources=frozenset({"image", "video"}), options=DuixOptions, settings=DuixSettings, light=True, canary=False
)
