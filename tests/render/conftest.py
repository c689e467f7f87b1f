from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor

from app.media.image import load_image
from app.render.warp.renderer import WarpRenderer
from tests.render.scenes import SAMPLES, save_picture


@pytest.fixture(scope="session")
def renderer() -> WarpRenderer:
    made = WarpRenderer()
    made.load("cpu")
    return made


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory, picture: Tensor) -> Path:
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    save_picture(path, picture)
    return path


@pytest.fixture(scope="session")
def picture() -> Tensor:
    """[240, 240, 3], a cut of the sample portrait, scaled down: face and shoulders."""
    cut = load_image(SAMPLES / "portrait.png")[:410, 43:453]
    return torch.from_numpy(cv2.resize(cut, (240, 240), interpolation=cv2.INTER_AREA))
