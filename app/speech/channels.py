"""What an articulation curve holds: its channels, its clock and its rest pose.

A curve is a float32 array of shape [rows, 6]. Row k describes the instant k * 10 ms after the first
sample; the window that it is computed from is centred there. Columns are `CHANNELS`, each in 0..1.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
"""Samples a second of the audio that is analysed, mono."""

HOP = 160
"""Samples from one row to the next: 10 ms."""

ROWS_PER_SECOND = SAMPLE_RATE // HOP

CHANNELS = ("jaw", "width", "protrusion", "closure", "labiodental", "speech")
"""Column names.

jaw: opening, 0 shut, 1 as wide as in a clear /a/. width: of the mouth, 0.5 neutral, 1 spread (/i/), 0
narrow (/u/). protrusion: of the lips, 1 as in /u/. closure: 1 while the lips are pressed shut (p, b, m).
labiodental: 1 while the lower lip is at the upper teeth (f, v). speech: 1 while someone speaks.
"""

JAW, WIDTH, PROTRUSION, CLOSURE, LABIODENTAL, SPEECH = range(len(CHANNELS))

REST: FloatArray = np.array([0.0, 0.5, 0.0, 0.0, 0.0, 0.0], dtype=np.float32)
"""The pose of someone who is silent: mouth relaxed and shut. Lips that touch at rest are not a closure."""
REST.setflags(write=False)


def row_count(samples: int) -> int:
    """How many rows a recording of that many samples gets: one for each hop begun."""
    return -(-samples // HOP)
