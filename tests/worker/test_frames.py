"""Frames from a pipe whose writer may stop at any byte."""

from __future__ import annotations

import multiprocessing as mp
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.worker.frames import LIMIT, BrokenFrame, FrameReader


@pytest.fixture
def pipe():
    reader, writer = mp.Pipe(duplex=False)
    yield FrameReader(reader), writer
    for end in (reader, writer):
        end.close()


def test_it_never_waits(pipe):
    reader, _writer = pipe
    assert reader.read() is None


def test_it_reads_what_multiprocessing_writes_one_frame_at_a_time(pipe):
    reader, writer = pipe
    for frame in (b"one", b"", b"three" * 5000):
        writer.send_bytes(frame)
    assert [reader.read() for _ in range(4)] == [b"one", b"", b"three" * 5000, None]


@given(st.binary(min_size=1, max_size=40), st.data())
def test_a_frame_that_comes_in_pieces_is_put_together(frame, data):
    ends = reader, writer = mp.Pipe(duplex=False)
    frames = FrameReader(reader)
    rest = struct.pack("!i", len(frame)) + frame
    while rest:
        assert frames.read() is None
        size = data.draw(st.integers(1, len(rest)))
        os.write(writer.fileno(), rest[:size])
        rest = rest[size:]
    assert frames.read() == frame
    assert frames.read() is None
    for end in ends:
        end.close()


@pytest.mark.parametrize("begun", [b"", b"\0\0", b"\0\0\0\x10half"])
def test_the_end_of_the_writer_is_told_in_the_middle_of_a_frame_too(pipe, begun):
    reader, writer = pipe
    os.write(writer.fileno(), begun)
    os.close(os.dup(writer.fileno()))
    writer.close()
    with pytest.raises(EOFError):
        reader.read()


@pytest.mark.parametrize("length", [-1, -(2**31), LIMIT + 1, 2**31 - 1])
def test_a_length_that_cannot_be_is_not_believed(pipe, length):
    reader, writer = pipe
    os.write(writer.fileno(), struct.pack("!i", length))
    with pytest.raises(BrokenFrame):
        reader.read()
