"""One pass over the packets of a file, and a decode of its beginning and its end."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame

from app.media.audio_in import require_mixable
from app.media.containers import invalid, too_large, undecodable
from app.media.orientation import frame_orientation, square_size

PACKETS_WITHOUT_A_FRAME = 100
"""Decoders delay frames by their reordering depth and threads; after so many packets nothing will come."""
END_PACKETS = 300
"""Packets decoded behind the last keyframe at most: a file may have only one keyframe, and be an hour long."""
_END_S = 1.0


class _Span:
    """Times of one stream, in ticks of its time base, from its packets."""

    def __init__(self, tick: Fraction) -> None:
        self.tick = float(tick)
        self.packets = 0
        self.start: int | None = None
        self.end = 0
        self.last_key: int | None = None
        self.packets_since_key = 0

    def add(self, packet: Packet[Stream]) -> None:
        pts = packet.pts if packet.pts is not None else packet.dts
        self.packets += 1
        self.packets_since_key += 1
        if pts is None:
            pts = self.end
        if packet.is_keyframe:
            self.last_key, self.packets_since_key = pts, 0
        if packet.is_discard:
            return
        self.start = pts if self.start is None else min(self.start, pts)
        self.end = max(self.end, pts + (packet.duration or 0))

    @property
    def seconds(self) -> float:
        return 0.0 if self.start is None else (self.end - self.start) * self.tick


class StreamSurvey:
    """Measures one video and one audio stream (either may be None). Sizes are as displayed, durations in seconds."""

    def __init__(
        self, container: InputContainer, path: Path, video: av.VideoStream | None, audio: av.AudioStream | None
    ) -> None:
        self._container = container
        self._path = path
        self._video = video
        self._audio = audio
        streams = [stream for stream in (video, audio) if stream is not None]
        self._spans = {stream.index: _Span(stream.time_base or Fraction(1, 1000)) for stream in streams}
        self._streams = streams
        self.width = self.height = self.rotation = 0
        self.sample_rate = self.channels = 0
        self._fruitless = {stream.index: 0 for stream in streams}
        self._seen: set[int] = set()
        self.end = 0.0
        """When the last packet of any stream ends, in seconds from the file's own 0."""

    @property
    def video_seconds(self) -> float:
        return 0.0 if self._video is None else self._spans[self._video.index].seconds

    @property
    def audio_seconds(self) -> float:
        """0 where the stream holds no sample that can be decoded."""
        if self._audio is None or self._audio.index not in self._seen:
            return 0.0
        return self._spans[self._audio.index].seconds

    @property
    def seconds(self) -> float:
        """The longer of both streams, by its packets."""
        return max(span.seconds for span in self._spans.values())

    @property
    def declared_seconds(self) -> float:
        """The longer of both streams, by the header; 0 where it does not say."""
        return max(float((stream.duration or 0) * (stream.time_base or 0)) for stream in self._streams)

    @property
    def fps(self) -> float:
        """Average frames/s of the video."""
        if self._video is None or self.video_seconds <= 0:
            return 0.0
        return self._spans[self._video.index].packets / self.video_seconds

    def read_through(self, max_seconds: float) -> None:
        """Read every packet; decode each stream until its first frame. Raises CodedError, also for too long ones."""
        try:
            for packet in self._container.demux():
                index = packet.stream.index
                if packet.size > 0:
                    self._note_end(packet)
                if index not in self._spans:
                    continue
                if packet.size > 0:
                    span = self._spans[index]
                    span.add(packet)
                    if span.seconds > max_seconds:
                        message = f"{self._path.name} is longer than {max_seconds:g} s."
                        raise too_large("too_long", message, limit=max_seconds, measured=round(span.seconds, 3))
                if index not in self._seen:
                    self._decode_first(packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise self._coded(error) from error

    def _note_end(self, packet: Packet[Stream]) -> None:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and packet.time_base:
            self.end = max(self.end, float((time + (packet.duration or 0)) * packet.time_base))

    def require_content(self) -> None:
        """Raise `no_video_frames`, or `no_samples` for a sound file. A video may have an empty sound track."""
        if self._video is not None and self._video.index not in self._seen:
            raise invalid("no_video_frames", f"{self._path.name} has a video stream, but not one frame in it.")
        if self._video is None and self._audio is not None and self._audio.index not in self._seen:
            raise invalid("no_samples", f"{self._path.name} has an audio stream, but not one sample in it.")

    def decode_end(self) -> None:
        """Decode what follows the last keyframe, and the last second of sound. Raises `truncated`."""
        for stream in self._streams:
            if stream.index not in self._seen:
                continue
            span = self._spans[stream.index]
            if span.packets_since_key > END_PACKETS and stream is self._video:
                continue
            target = span.last_key if stream is self._video else span.end - int(_END_S / span.tick)
            target = max(target or 0, span.start or 0)
            try:
                self._container.seek(target, stream=stream, backward=True)
                frames = self._count_frames(stream)
            except (av.error.FFmpegError, ValueError) as error:
                raise self._coded(error, at_end=True) from error
            if frames == 0:
                message = f"The end of {self._path.name} cannot be decoded."
                raise invalid("truncated", message, "The upload or the recording was cut off; send the whole file.")

    def _count_frames(self, stream: av.VideoStream | av.AudioStream) -> int:
        frames = 0
        for packet in self._container.demux(stream):
            try:
                frames += len(packet.decode())
            except (av.error.FFmpegError, ValueError) as error:
                if stream is self._video or isinstance(error, MemoryError):
                    raise
        return frames

    def _decode_first(self, packet: Packet[Stream]) -> None:
        index = packet.stream.index
        self._fruitless[index] += 1
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            # A damaged packet of sound is a click, as in `audio_in`; a damaged first picture is a damaged file.
            hopeless = self._fruitless[index] > PACKETS_WITHOUT_A_FRAME or isinstance(error, MemoryError)
            if packet.stream is self._video or hopeless:
                raise
            return
        for frame in frames:
            if isinstance(frame, VideoFrame):
                self._learn_picture(frame)
            elif isinstance(frame, AudioFrame) and frame.samples > 0:
                if self._video is None and not self.channels:
                    require_mixable(frame, self._path.name)
                self.sample_rate, self.channels = frame.sample_rate, frame.layout.nb_channels
                self._seen.add(index)

    def _learn_picture(self, frame: VideoFrame) -> None:
        assert self._video is not None
        orientation = frame_orientation(frame)
        aspect = self._video.sample_aspect_ratio or self._video.codec_context.sample_aspect_ratio or Fraction(1)
        self.width, self.height = orientation.size(*square_size(frame.width, frame.height, aspect))
        self.rotation = orientation.degrees
        self._seen.add(self._video.index)

    def _coded(self, error: Exception, *, at_end: bool = False) -> Exception:
        if at_end and not isinstance(error, MemoryError):
            message = f"The end of {self._path.name} cannot be decoded ({error})."
            return invalid("truncated", message, "The upload or the recording was cut off; send the whole file.")
        return undecodable(self._path, error)
