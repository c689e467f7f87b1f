"""Recorded music to train beside: that of games in Debian, all of free licences. The evaluation's is other music."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 16_000

_FOLDERS = (
    Path("/usr/share/games/wesnoth/1.16/data/core/music"),
    Path("/usr/share/games/lincity-ng/music"),
    Path("/usr/share/games/etr/music"),
)
"""Where Debian's wesnoth-1.16-music, lincity-ng-data and extremetuxracer-data put their music."""

_MORE = (Path("/usr/share/games/singularity/music"), Path("/usr/share/planetblupi/music"))
"""Where singularity-music and planetblupi-music-ogg put theirs, much of it electronic."""

_SECONDS = 40.0
"""Of each piece, from its middle."""


def recorded_music(folder: Path, share: float = 1.0, more: bool = False) -> npt.NDArray[np.float32]:
    """[samples] at 16 kHz, the pieces one after another, each of unit level; decoded once and kept in the folder.

    share: of the pieces, for a quick try. more: of other kinds too. Raises FileNotFoundError where there is no music.
    """
    places = _FOLDERS + _MORE if more else _FOLDERS
    kept = folder / f"music-{share:.2f}{'-more' if more else ''}.npy"
    if not kept.exists():
        paths = sorted(path for place in places for path in place.glob("**/*.ogg"))
        if not paths:
            raise FileNotFoundError(f"no music in {_FOLDERS[0]}: install Debian's packages of training/README.md")
        pieces = [_middle(path) for path in paths[:: max(1, round(1 / share))]]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.concatenate([piece / piece.std() for piece in pieces if piece.std() > 0]))
    music: npt.NDArray[np.float32] = np.load(kept)
    return music


def _middle(path: Path) -> npt.NDArray[np.float32]:
    """_SECONDS from the middle of a file, or all of it where it is shorter."""
    import av

    with av.open(str(path)) as source:
        resampler = av.AudioResampler("flt", "mono", RATE)
        if source.duration is not None:
            source.seek(max(0, int(source.duration / 2 - _SECONDS / 2 * av.time_base)))
        parts: list[npt.NDArray[np.float32]] = []
        length = 0
        for frame in source.decode(audio=0):
            for resampled in resampler.resample(frame):
                parts.append(resampled.to_ndarray().ravel())
                length += len(parts[-1])
            if length >= _SECONDS * RATE:
                break
    return np.concatenate(parts)[: int(_SECONDS * RATE)].astype(np.float32)
