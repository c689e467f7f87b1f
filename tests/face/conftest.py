from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from app.face.analyser import FaceAnalyser
from tests.face.portraits import portrait


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def analyser() -> FaceAnalyser:
    return FaceAnalyser(torch.device("cpu"))


@pytest.fixture(scope="session")
def portrait_points(analyser: FaceAnalyser) -> npt.NDArray[np.float32]:
    """The mesh ``[478, 3]`` of the portrait."""
    return analyser.portrait(torch.from_numpy(portrait())).landmarks[0]
