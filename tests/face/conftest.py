from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from app.face.analyser import FaceAnalyser
from tests.face.portraits import portrait


@pytest.fixture(scope="session")
def analyser() -> FaceAnalyser:
    return FaceAnalyser(torch.device("cpu"))


@pytest.fixture(scope="session")
def portrait_points(analyser: FaceAnalyser) -> npt.NDArray[np.float32]:
    """The mesh ``[478, 3]`` of the portrait."""
    return analyser.portrait(torch.from_numpy(portrait())).landmarks[0]
