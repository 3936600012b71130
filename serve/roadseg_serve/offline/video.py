"""Videos: their frames as upright pictures, and new videos that keep the old one's times, size and sound.

It loads PyAV, so it is imported where a video is met. Axes: H height, W width, C channel (R, G, B). Pictures are uint8
in [0, 255].
"""

import io
import math
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream
from av.video.reformatter import ColorRange, Colorspace

from roadseg_serve.errors import FileError
from roadseg_serve.messages import UInt8Array

# What is missing at the end of a video before it counts as cut short: lengths in headers are not exact.
MISSING_S = 1.0

# Nearly without visible loss, at a speed that keeps ahead of the model.
H264 = ("libx264", {"crf": "20", "preset": "veryfast"})
# H.264 as players know it has even sides only; VP9 has any.
VP9 = ("libvpx-vp9", {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1"})

BT709 = 1  # in the tables of ITU-T H.273: what players take a picture for that says nothing


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video, decoded but not yet a picture.

    Attributes:
        index: among all frames, from 0.
        pts: its time, in units of the reader's `time_base`.
        raw: as the decoder gives it.
    """

    index: int
    pts: int
    raw: av.VideoFrame


class Reader:
    """Reads a video file: iterating gives its frames, as far as they can be read; then `fault` says what could not.

    Args:
        path: of the file.
        every: gives each frame whose index is a multiple of this.
        with_sound: whether a `Writer` will take the sound.

    Raises:
        FileError: nothing of it can be read.

    Attributes:
        time_base: seconds that one unit of time lasts.
        rate: frames per second that iterating gives, mean.
        sample_aspect_ratio: width of a stored pixel by its height, if the file tells.
        quarter_turns: counter-clockwise, that make a stored frame upright; known from the first frame on.
        sound: the audio streams that an mp4 can hold as they are; none where sound is not wanted.
        heard: packets of them that were passed since the writer took them.
        note: what is left out of the sound; mostly empty.
        fault: what is wrong with the file, when its end is reached; empty if nothing is.
    """

    def __init__(self, path: Path, *, every: int = 1, with_sound: bool = False) -> None:
        try:
            self._container = av.open(f"file:{path}")
        except av.FFmpegError as error:
            raise FileError(f"It cannot be read as a video ({error.strerror}). Copy or convert it again.") from error
        stream = self._container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.codec_context is None or stream.time_base is None:
            self._container.close()
            raise FileError("It has no video that can be decoded. Convert it, for example to H.264 in mp4.")
        stream.thread_type = "AUTO"
        self._stream = stream
        self._every = every
        self.time_base = stream.time_base
        self.rate = (stream.average_rate or stream.guessed_rate or Fraction(25)) / every
        self.sample_aspect_ratio = stream.sample_aspect_ratio
        wanted = self._container.streams.audio if with_sound else ()
        self.sound = [each for each in wanted if _mp4_holds(path, each)]
        left_out = ", ".join(each.name or "unknown" for each in wanted if each not in self.sound)
        self.note = f"Its sound is left out, as mp4 cannot hold it ({left_out})." if left_out else ""
        self.heard: deque[Packet[Stream]] = deque()
        self.quarter_turns = 0
        self.fault = ""
        self._num_frames = 0
        self._num_bad = 0
        self._end_s = 0.0  # of the last packet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright pictures; known from the first frame on."""
        height, width = self._stream.height, self._stream.width
        return (width, height) if self.quarter_turns % 2 else (height, width)

    @property
    def num_expected(self) -> int:
        """How many frames iterating will give, as far as the header tells; 0 if it does not."""
        num_frames = self._stream.frames / self._every or self._duration_s * self.rate
        return math.ceil(num_frames)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Frames in the order of their times, which rise whatever the file says.

        Raises:
            FileError: there is none.
        """
        step = max(1, round(1 / (self.rate * self._every * self.time_base)))
        last = None
        for raw in self._raw_frames():
            self.quarter_turns = round(raw.rotation / 90)
            pts = raw.pts
            if last is None:
                pts = pts or 0
            elif pts is None:
                pts = last + step
            else:
                pts = max(pts, last + 1)
            last = pts
            if self._num_frames % self._every == 0:
                yield VideoFrame(self._num_frames, pts, raw)
            self._num_frames += 1
        if self._num_frames == 0:
            raise FileError("None of its frames can be read. Copy or convert it again.")
        self.fault = self._what_is_wrong()

    def picture_of(self, frame: VideoFrame) -> UInt8Array:
        """The frame as upright image_HWC, RGB, uint8 in [0, 255]; may be called in any thread."""
        # Of the stream's size, should a frame have another; one thread, as several frames are converted at a time.
        rgb = frame.raw.reformat(width=self._stream.width, height=self._stream.height, format="rgb24", threads=1)
        image_HWC: UInt8Array = rgb.to_ndarray().astype(np.uint8, copy=False)
        return np.ascontiguousarray(np.rot90(image_HWC, self.quarter_turns))

    def _raw_frames(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            try:
                raw_frames = self._stream.decode(packet)
            except av.FFmpegError:
                self._num_bad += 1
                continue
            for raw in raw_frames:
                self._num_bad += raw.is_corrupt
                yield raw

    def _packets(self) -> "Iterator[Packet[Stream] | None]":
        """Those of the video; at the end None, which makes the decoder give what it holds back."""
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError:
                self._num_bad += 1
                break
            if packet.size == 0:  # how PyAV ends each stream
                continue
            if packet.pts is not None:
                self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream in self.sound:
                self.heard.append(packet)
            elif packet.stream is self._stream:
                yield packet
        yield None

    @property
    def _duration_s(self) -> float:
        return (self._container.duration or 0) / 1e6

    def _what_is_wrong(self) -> str:
        kind, end_s = self._container.format.name, 0.0
        # By what the header says; other containers say nothing, and what FFmpeg guesses may be far off.
        if kind.startswith(("mov", "matroska")):
            end_s = (self._container.start_time or 0) / 1e6 + self._duration_s
        elif kind == "avi":  # whose length is taken from what is left of it
            end_s = float(self._stream.frames / (self.rate * self._every))
        missing_s = end_s - self._end_s
        faults = []
        if missing_s > MISSING_S:
            faults.append(f"its last {missing_s:.0f} s are missing")
        if self._num_bad:
            faults.append(f"damaged in {self._num_bad} {'place' if self._num_bad == 1 else 'places'}")
        if not faults:
            return ""
        return f"Not all of it can be read: {', '.join(faults)}. What could be read is written; copy it again for all."


class Writer:
    """Writes an mp4 with new pictures and a reader's times, rate and sound.

    Sound goes over as it is.

    Args:
        path: of the file.
        reader: of the video that the pictures come from; it has given a frame.

    Raises:
        FileError: it cannot be written.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        height, width = reader.size
        codec, options = H264 if height % 2 == width % 2 == 0 else VP9
        self._reader = reader
        with _writing(), ExitStack() as on_fault:
            # The index goes to the front, so that a browser plays it before it has all of it.
            container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
            on_fault.callback(container.close)
            stream = container.add_stream(codec, reader.rate, options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            context = stream.codec_context
            context.time_base = reader.time_base
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = ColorRange.MPEG
            if reader.sample_aspect_ratio:
                context.sample_aspect_ratio = reader.sample_aspect_ratio ** (-1 if reader.quarter_turns % 2 else 1)
            self._sound: dict[Stream, Stream] = {
                each: container.add_stream_from_template(each) for each in reader.sound
            }
            self._container, self._stream = container, stream
            self._close = on_fault.pop_all()
        self._last_dts: dict[Stream, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exception: object) -> None:
        if kind is None:
            with _writing():
                self._container.mux(self._stream.encode(None))
                self._copy_sound()
                self._close.close()
        else:
            # The file is thrown away: whatever else goes wrong with it is of no interest.
            with suppress(av.FFmpegError):
                self._close.close()

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        """Add a picture, as `to_yuv` gives it, at a time in units of the reader's `time_base`."""
        picture.pts, picture.time_base = pts, self._reader.time_base
        with _writing():
            self._container.mux(self._stream.encode(picture))
            self._copy_sound()

    def _copy_sound(self) -> None:
        while self._reader.heard:
            packet = self._reader.heard.popleft()
            stream = self._sound[packet.stream]
            # Times that do not rise come from damage, and mp4 cannot hold them.
            if packet.dts is not None and packet.dts > self._last_dts.get(stream, packet.dts - 1):
                self._last_dts[stream] = packet.dts
                packet.stream = stream
                self._container.mux(packet)


def to_yuv(image_HWC: UInt8Array) -> av.VideoFrame:
    """A picture as encoders take it: 4:2:0, BT.709.

    Args:
        image_HWC: RGB, uint8 in [0, 255].
    """
    rgb = av.VideoFrame.from_ndarray(image_HWC, format="rgb24")
    return rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1)


def _mp4_holds(path: Path, sound: AudioStream) -> bool:
    """Whether an mp4 can hold this sound as it is; only an attempt with its first packet tells for sure."""
    try:
        with av.open(f"file:{path}") as source, av.open(io.BytesIO(), "w", format="mp4") as target:
            stream = target.add_stream_from_template(sound)
            packet = next(source.demux(source.streams[sound.index]))
            packet.stream = stream
            target.mux(packet)
    except (av.FFmpegError, ValueError):
        return False
    return True


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise FileError(f"The new video cannot be written ({error.strerror}).") from error
