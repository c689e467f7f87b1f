"""HDR frames, as phones record them, in the colours of everything else here: sRGB with the primaries of BT.709.

PQ and HLG after ITU-R BT.2100, with the white of paper at 203 cd/m2 (ITU-R BT.2408); what is brighter is cut off there.
Faces lie below. swscale converts these too, but takes seconds for its first frame, and not all its flags go with it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

PQ, HLG = 16, 18
"""Transfer characteristics of ITU-T H.273: SMPTE ST 2084 and ARIB STD-B67."""
_WHITE, _HLG_PEAK, _HLG_GAMMA = 203.0, 1000.0, 1.2
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_STEPS = 4096
_ROWS = 16
"""So many at once stay in the cache."""

Codes = npt.NDArray[np.uint16]


def is_hdr(transfer: int) -> bool:
    """Whether frames of this transfer characteristic are HDR."""
    return transfer in (PQ, HLG)


def to_srgb(codes: Codes, transfer: int) -> npt.NDArray[np.uint8]:
    """`codes` `[H, W, 3]`, full-range R'G'B' of BT.2020 at 16 bits, as sRGB at 8."""
    shown = np.empty(codes.shape, np.uint8)
    for top in range(0, len(codes), _ROWS):
        shown[top : top + _ROWS] = _rows(codes[top : top + _ROWS], transfer)
    return shown


def _rows(codes: Codes, transfer: int) -> npt.NDArray[np.uint8]:
    light = _linear(transfer)[codes]
    if transfer == HLG:  # its codes are of the scene: what a display makes of them depends on their brightness
        light *= (np.maximum(light @ _LUMA, 1e-6) ** np.float32(_HLG_GAMMA - 1))[..., None]
        light *= np.float32(_HLG_PEAK / _WHITE)
    light = light @ _BT2020_TO_BT709.T
    np.clip(light, 0, 1, out=light)
    # Even steps of the square root: fine where the curve is steep.
    return _display()[(np.sqrt(light) * (_STEPS - 1) + 0.5).astype(np.uint16)]


@lru_cache(maxsize=2)
def _linear(transfer: int) -> npt.NDArray[np.float32]:
    """Light of each code: with PQ, 1 is the white of paper; with HLG, the brightest of the scene."""
    code = np.arange(65_536) / 65_535
    if transfer == PQ:
        power = code ** (1 / 78.84375)
        light = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        return (light ** (1 / 0.1593017578125) * (10_000 / _WHITE)).astype(np.float32)
    bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(code <= 0.5, code * code / 3, bright).astype(np.float32)


@lru_cache(maxsize=1)
def _display() -> npt.NDArray[np.uint8]:
    light = (np.arange(_STEPS) / (_STEPS - 1)) ** 2
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (code * 255 + 0.5).astype(np.uint8)
