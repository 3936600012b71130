"""Videos: their frames as upright pictures, and new videos with the same times, size and sound.

Imported only when a video is met, because it loads PyAV. Axes: H height, W width, C channel (R, G, B). Pictures are
uint8 in [0, 255].
"""

import io
import math
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream
from av.video.reformatter import ColorRange, Colorspace

from roadseg_serve.errors import FileError
from roadseg_serve.messages import UInt8Array

# A video counts as truncated if more than this is missing: durations in headers are not exact.
MISSING_S = 1.0

# Almost no visible loss, and still faster than the model.
H264 = ("libx264", {"crf": "20", "preset": "veryfast"})
# Players expect even sides in H.264; VP9 takes odd ones too.
VP9 = ("libvpx-vp9", {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1"})

BT709 = 1  # in the tables of ITU-T H.273; players assume it for unlabelled videos


class Reader(AbstractContextManager["Reader"]):
    """Reads a video file. Iterating gives the index and each frame that can be read, then `fault` says what could not.

    Only the frames whose index is a multiple of `every` are taken. `with_sound` passes the sound on to a `Writer`.

    Raises:
        FileError: the file cannot be opened as a video.
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
        self.time_base = stream.time_base  # seconds in one unit of time
        self.rate = (stream.average_rate or stream.guessed_rate or Fraction(25)) / every  # mean frames per second
        self.sample_aspect_ratio = stream.sample_aspect_ratio  # width by height of a stored pixel, if the file says so
        wanted = self._container.streams.audio if with_sound else ()
        self.audio = [each for each in wanted if _fits_mp4(path, each)]  # unchanged
        left_out = ", ".join(each.name or "unknown" for each in wanted if each not in self.audio)
        self.note = f"Its sound is left out because mp4 cannot hold it ({left_out})." if left_out else ""
        self.audio_packets: deque[Packet[Stream]] = deque()  # read so far; the writer takes them from here
        self.quarter_turns = 0  # counter-clockwise, to make a stored frame upright; known after the first frame
        self.fault = ""  # what is wrong with the file; known at its end
        self._num_bad = 0
        self._end_s = 0.0  # of the last packet
        self._duration_s = (self._container.duration or 0) / 1e6  # according to the header

    def __exit__(self, *_exception: object) -> None:
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright pictures; known after the first frame."""
        height, width = self._stream.height, self._stream.width
        return (width, height) if self.quarter_turns % 2 else (height, width)

    @property
    def num_expected(self) -> int:
        """The number of frames that iterating will give, according to the header; 0 if it does not say."""
        return math.ceil(self._stream.frames / self._every or self._duration_s * self.rate)

    def __iter__(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """Index among all frames, and the frame, with strictly increasing `pts`; raises FileError if there is none."""
        step = max(1, round(1 / (self.rate * self._every * self.time_base)))
        last = None
        index = -1
        for index, frame in enumerate(self._decode_all()):
            self.quarter_turns = round(frame.rotation / 90)
            if frame.pts is not None:
                last = frame.pts if last is None else max(frame.pts, last + 1)
            else:
                last = 0 if last is None else last + step
            frame.pts = last
            if index % self._every == 0:
                yield index, frame
        if index < 0:
            raise FileError("None of its frames can be read. Copy or convert it again.")
        self.fault = self._find_fault()

    def picture_of(self, frame: av.VideoFrame) -> UInt8Array:
        """The frame as upright image_HWC, RGB, uint8 in [0, 255]; may be called from any thread."""
        # To the stream's size, in case this frame differs. One thread, because several frames are converted at a time.
        rgb = frame.reformat(width=self._stream.width, height=self._stream.height, format="rgb24", threads=1)
        image_HWC: UInt8Array = rgb.to_ndarray().astype(np.uint8, copy=False)
        return np.ascontiguousarray(np.rot90(image_HWC, self.quarter_turns))

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._container.demux():
                if packet.size == 0:  # PyAV's end of a stream
                    continue
                if packet.pts is not None:
                    self._end_s = max(self._end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream in self.audio:
                    self.audio_packets.append(packet)
                elif packet.stream is self._stream:
                    yield from self._decode(packet)
        except av.FFmpegError:
            self._num_bad += 1
        yield from self._decode(None)  # what the decoder still holds

    def _decode(self, packet: "Packet[Stream] | None") -> list[av.VideoFrame]:
        try:
            frames = self._stream.decode(packet)
        except av.FFmpegError:
            self._num_bad += 1
            return []
        self._num_bad += sum(frame.is_corrupt for frame in frames)
        return frames

    def _find_fault(self) -> str:
        kind, end_s = self._container.format.name, 0.0
        # Only these headers give a duration; FFmpeg's guess for other containers may be far off.
        if kind.startswith(("mov", "matroska")):
            end_s = (self._container.start_time or 0) / 1e6 + self._duration_s
        elif kind == "avi":  # FFmpeg derives its duration from the remaining file
            end_s = float(self._stream.frames / (self.rate * self._every))
        missing_s = end_s - self._end_s
        faults = []
        if missing_s > MISSING_S:
            faults.append(f"its last {missing_s:.0f} s are missing")
        if self._num_bad:
            faults.append(f"damaged in {self._num_bad} {'place' if self._num_bad == 1 else 'places'}")
        if not faults:
            return ""
        return f"It cannot be read completely: {', '.join(faults)}. The rest is written; copy the file again for all."


class Writer(AbstractContextManager["Writer"]):
    """Writes an mp4 with new pictures, and with the times, rate and unchanged sound of the video in `reader`.

    At least one frame must have been read from it. Raises FileError if the file cannot be written.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        height, width = reader.size
        codec, options = H264 if height % 2 == width % 2 == 0 else VP9
        self._reader = reader
        with _write_errors(), ExitStack() as on_error:
            # With the index at the front, a browser plays the file while it loads.
            container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
            on_error.callback(container.close)
            stream = container.add_stream(codec, reader.rate, options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            context = stream.codec_context
            context.time_base = reader.time_base
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = ColorRange.MPEG
            if reader.sample_aspect_ratio:
                context.sample_aspect_ratio = reader.sample_aspect_ratio ** (-1 if reader.quarter_turns % 2 else 1)
            self._audio: dict[Stream, Stream] = {
                each: container.add_stream_from_template(each) for each in reader.audio
            }
            self._container, self._stream = container, stream
            self._close = on_error.pop_all()
        self._last_dts: dict[Stream, int] = {}

    def __exit__(self, kind: type[BaseException] | None, *_exception: object) -> None:
        if kind is None:
            with _write_errors():
                self._container.mux(self._stream.encode(None))
                self._copy_audio()
                self._close.close()
        else:
            with suppress(av.FFmpegError):  # the file is thrown away
                self._close.close()

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        """Add a picture from `to_yuv`, at a time in units of the reader's `time_base`."""
        picture.pts, picture.time_base = pts, self._reader.time_base
        with _write_errors():
            self._container.mux(self._stream.encode(picture))
            self._copy_audio()

    def _copy_audio(self) -> None:
        while self._reader.audio_packets:
            packet = self._reader.audio_packets.popleft()
            stream = self._audio[packet.stream]
            # Times that do not increase come from damage, and mp4 cannot hold them.
            if packet.dts is not None and packet.dts > self._last_dts.get(stream, packet.dts - 1):
                self._last_dts[stream] = packet.dts
                packet.stream = stream
                self._container.mux(packet)


def to_yuv(image_HWC: UInt8Array) -> av.VideoFrame:
    """An RGB picture, uint8 in [0, 255], as encoders take it: 4:2:0, BT.709."""
    rgb = av.VideoFrame.from_ndarray(image_HWC, format="rgb24")
    return rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1)


def _fits_mp4(path: Path, audio: AudioStream) -> bool:
    """Whether mp4 can hold this sound unchanged; only writing its first packet tells for sure."""
    try:
        with av.open(f"file:{path}") as source, av.open(io.BytesIO(), "w", format="mp4") as target:
            stream = target.add_stream_from_template(audio)
            packet = next(source.demux(source.streams[audio.index]))
            packet.stream = stream
            target.mux(packet)
    except (av.FFmpegError, ValueError):
        return False
    return True


@contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise FileError(f"The new video cannot be written ({error.strerror}).") from error
