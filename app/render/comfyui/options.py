"""Options, settings and capabilities of renderer `comfyui`. Imports neither torch nor a codec: the API reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.render.comfyui.workflow import READY, load_workflow
from app.render.contract import Capabilities
from app.render.remote.settings import RemoteSettings


class ComfyOptions(BaseModel):
    """What a caller can set in `options` for renderer `comfyui`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fps: Annotated[float, Field(ge=1, le=60)] = 25.0
    """Frames per second that the workflow is asked for."""
    seed: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """For workflows with a sampler; null takes another one each time."""
    max_side: Annotated[int, Field(ge=64, le=4096)] = 1024
    """A portrait is scaled down to this before it is sent."""


def _workflow(path: Path) -> Path:
    load_workflow(path)
    return path


class ComfySettings(RemoteSettings):
    """What an operator can set in a tier of renderer `comfyui`. `url` is the server's, e.g. `http://10.0.0.6:8188`."""

    workflow: Annotated[Path, AfterValidator(_workflow)] = READY
    """A workflow in API format with placeholders; left out, one of core nodes without lip motion."""
    output_node: str | None = None
    """Id of the node whose video is the result; left out, the only one that makes a video."""


CAPABILITIES = Capabilities(
    sources=frozenset({"image"}), options=ComfyOptions, settings=ComfySettings, light=True, canary=False
)
