"""Videos in, videos or frames out, with the model whose road probability is red / 255."""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress

from roadseg_serve.errors import FileError
from roadseg_serve.messages import Format, UInt8Array
from roadseg_serve.offline.inputs import Input, plan
from roadseg_serve.offline.segment import Options, Outcome, Segmenter, segment_files
from roadseg_serve.offline.video import Reader

MakeFrame = Callable[[int], UInt8Array]
MILLISECOND = Fraction(1, 1000)

# Coding is not exact, and its edges are blurred: looked at in the midst of flat areas.
RED, BLUE = (200, 0, 0), (0, 0, 250)
RED_AS_ROAD = (111, 102, 56)  # round((125 * RED + 130 * (26, 200, 110)) / 255)
NEARLY = 10


def halves(width: int, height: int) -> MakeFrame:
    """Each frame: the left half red, the right half blue."""
    image_HWC = np.empty((height, width, 3), np.uint8)
    image_HWC[:, : width // 2], image_HWC[:, width // 2 :] = RED, BLUE
    return lambda _index: image_HWC


def write_video(
    path: Path,
    frame_of: MakeFrame,
    times_ms: Sequence[int],
    *,
    codec: str = "libx264",
    rotation: int = 0,
    audio: str = "",
) -> Path:
    """A video with frames at these times, and sound as long as they."""
    height, width = frame_of(0).shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, 10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = MILLISECOND if codec == "libx264" else Fraction(1, 10)
        # Told as cameras do: most of a file's sense for damage needs some bytes in each frame.
        stream.codec_context.gop_size = 5
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream(audio, 48000) if audio else None
        for index, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(frame_of(index), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time_ms * MILLISECOND / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            assert isinstance(sound, av.AudioStream)
            for start in range(0, 48 * times_ms[-1], 1024):
                silence = np.zeros((1, 2048), np.int16)
                samples = av.AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
                samples.sample_rate, samples.pts, samples.time_base = 48000, start, Fraction(1, 48000)
                container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def steady(num_frames: int) -> list[int]:
    """Ten frames a second."""
    return [100 * index for index in range(num_frames)]


def read_video(path: Path) -> tuple[list[int], list[UInt8Array]]:
    """Times in milliseconds and frames as image_HWC, as any player sees them."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    pictures = [frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False) for frame in frames]
    return [round(1000 * frame.time) for frame in frames], pictures


@pytest.fixture(scope="module")
def segmenter(red_artefact: Path) -> Segmenter:
    return Segmenter(str(red_artefact), num_threads=1)


def run(segmenter: Segmenter, source: Path, out: Path, wanted: Format | None = None, **options: Any) -> Outcome:
    jobs = plan([Input(source, Path(source.name))], out=out, wanted=wanted)
    [outcome] = segment_files(segmenter, jobs, Options(**options), Progress(disable=True))
    if outcome.target.parent.exists():
        assert not list(outcome.target.parent.glob(".*"))  # nothing half done is left
    return outcome


def test_an_overlay_has_the_times_of_the_video(segmenter: Segmenter, tmp_path: Path) -> None:
    times_ms = [500, 600, 640, 900, 1000, 1033, 1500, 1501]  # neither from zero nor in step
    source = write_video(tmp_path / "clip.mkv", halves(128, 96), times_ms)
    outcome = run(segmenter, source, tmp_path / "out")
    assert (outcome.state, outcome.fault, outcome.target) == ("written", "", tmp_path / "out" / "clip.mp4")
    assert (outcome.num_images, outcome.width, outcome.height) == (8, 128, 96)
    assert outcome.road_share == pytest.approx(0.5, abs=0.02)
    times_out_ms, images_HWC = read_video(outcome.target)
    assert times_out_ms == times_ms
    for image_HWC in images_HWC:
        assert image_HWC.shape == (96, 128, 3)
        assert image_HWC[48, 32] == pytest.approx(RED_AS_ROAD, abs=NEARLY)
        assert image_HWC[48, 96] == pytest.approx(BLUE, abs=NEARLY)
    with av.open(str(outcome.target)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].pix_fmt == "yuv420p"


def test_each_frame_has_its_own_mask(segmenter: Segmenter, tmp_path: Path) -> None:
    def frame_of(index: int) -> UInt8Array:
        image_HWC = np.full((64, 96, 3), BLUE, np.uint8)
        image_HWC[:, : 16 * (index % 6)] = RED
        return image_HWC

    source = write_video(tmp_path / "clip.mp4", frame_of, steady(12))
    outcome = run(segmenter, source, tmp_path / "out", Format.PNG)
    assert outcome.num_images == 12
    files = sorted((tmp_path / "out" / "clip").iterdir())
    assert [file.name for file in files] == [f"{index:06d}.png" for index in range(12)]
    for index, file in enumerate(files):
        mask_HW = np.asarray(Image.open(file))
        assert mask_HW.shape == (64, 96)
        centres = [8 + 16 * stripe for stripe in range(6)]
        assert mask_HW[32, centres].tolist() == [255 if x < 16 * (index % 6) else 0 for x in centres]
    # 0, 1, … 5 stripes of 6, twice: 2.5 of 6.
    assert outcome.road_share == pytest.approx(2.5 / 6, abs=0.02)


@pytest.mark.parametrize(("width", "height"), [(101, 77), (101, 76), (100, 77)])
def test_odd_sizes_are_kept(segmenter: Segmenter, tmp_path: Path, width: int, height: int) -> None:
    source = write_video(tmp_path / "clip.avi", halves(width, height), steady(5), codec="mpeg4")
    outcome = run(segmenter, source, tmp_path / "out")
    assert outcome.fault == ""
    times_ms, images_HWC = read_video(outcome.target)
    assert times_ms == steady(5)
    assert images_HWC[0].shape == (height, width, 3)
    assert images_HWC[4][40, 25] == pytest.approx(RED_AS_ROAD, abs=NEARLY)


@pytest.mark.parametrize(
    ("rotation", "red_is"), [(90, "below"), (-90, "above"), (180, "right")]
)  # counter-clockwise; the stored left side goes there
def test_a_rotated_video_is_made_upright(segmenter: Segmenter, tmp_path: Path, rotation: int, red_is: str) -> None:
    source = write_video(tmp_path / "clip.mp4", halves(128, 96), steady(3), rotation=rotation)
    outcome = run(segmenter, source, tmp_path / "out")
    [image_HWC, *_] = read_video(outcome.target)[1]
    assert image_HWC.shape[:2] == ((96, 128) if rotation == 180 else (128, 96)) == (outcome.height, outcome.width)
    red_y, red_x = {"below": (100, 48), "above": (28, 48), "right": (48, 100)}[red_is]
    assert image_HWC[red_y, red_x] == pytest.approx(RED_AS_ROAD, abs=NEARLY)
    assert image_HWC[-red_y, -red_x] == pytest.approx(BLUE, abs=NEARLY)


def test_every_takes_each_nth_frame_at_its_time(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mp4", halves(96, 64), steady(10))
    outcome = run(segmenter, source, tmp_path / "out", every=4)
    assert outcome.num_images == 3
    assert read_video(outcome.target)[0] == [0, 400, 800]
    run(segmenter, source, tmp_path / "out", Format.JSON, every=4)
    names = sorted(file.name for file in (tmp_path / "out" / "clip").iterdir())
    assert names == ["000000.json", "000004.json", "000008.json"]


@pytest.mark.parametrize(("container", "audio"), [("mp4", "aac"), ("mkv", "flac")])
def test_sound_is_copied_unchanged(segmenter: Segmenter, tmp_path: Path, container: str, audio: str) -> None:
    source = write_video(tmp_path / f"clip.{container}", halves(96, 64), steady(20), audio=audio)

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as opened:
            assert opened.streams.audio[0].codec_context.name == audio
            return [bytes(packet) for packet in opened.demux(audio=0) if packet.size]

    outcome = run(segmenter, source, tmp_path / "out")
    assert (outcome.fault, outcome.note) == ("", "")
    assert packets(outcome.target) == packets(source)
    assert read_video(outcome.target)[0] == steady(20)


def test_sound_that_mp4_cannot_hold_is_left_out_and_named(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.avi", halves(96, 64), steady(20), codec="mpeg4", audio="pcm_s16le")
    outcome = run(segmenter, source, tmp_path / "out")
    assert outcome.state == "written"
    assert "pcm_s16le" in outcome.note
    with av.open(str(outcome.target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def noise(_index: int) -> UInt8Array:
    """So that frames are of equal weight in the file."""
    return np.random.default_rng(_index).integers(0, 255, (64, 96, 3), np.uint8)


@pytest.mark.parametrize(("container", "codec"), [("mkv", "libx264"), ("avi", "mpeg4")])
def test_the_readable_part_of_a_truncated_video_is_written(
    segmenter: Segmenter, tmp_path: Path, container: str, codec: str
) -> None:
    source = write_video(tmp_path / f"clip.{container}", noise, steady(60), codec=codec)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    outcome = run(segmenter, source, tmp_path / "out")
    assert outcome.state == "failed"
    missing = re.search(r"its last (\d) s are missing", outcome.fault)
    assert missing is not None
    assert int(missing[1]) == pytest.approx(6 - outcome.num_images / 10, abs=0.6)
    times_ms, _ = read_video(outcome.target)
    assert 10 < outcome.num_images < 50
    assert times_ms == steady(outcome.num_images)


def test_a_damaged_video_is_read_to_its_end(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mp4", noise, steady(60))
    data = bytearray(source.read_bytes())
    middle, hole = len(data) // 2, len(data) // 10  # six frames
    data[middle : middle + hole] = bytes(hole)
    source.write_bytes(data)
    outcome = run(segmenter, source, tmp_path / "out")
    assert outcome.state == "failed"
    assert "damaged in" in outcome.fault
    assert outcome.num_images > 40
    assert read_video(outcome.target)[0][-1] == steady(60)[-1]


@pytest.mark.parametrize("kind", ["empty", "text", "no index", "only sound"])
def test_a_file_that_is_no_video_is_an_error(segmenter: Segmenter, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "clip.mp4"
    if kind == "only sound":
        with av.open(str(source), "w") as container:
            sound = container.add_stream("aac", 48000)
            assert isinstance(sound, av.AudioStream)
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), format="s16", layout="stereo")
            samples.sample_rate = 48000
            container.mux([*sound.encode(samples), *sound.encode(None)])
    elif kind == "no index":
        data = write_video(source, noise, steady(20)).read_bytes()
        source.write_bytes(data[: len(data) // 2])  # an mp4 has it at the end
    else:
        source.write_text("" if kind == "empty" else "no video at all")
    outcome = run(segmenter, source, tmp_path / "out")
    assert outcome.state == "failed"
    assert "again" in outcome.fault or "Convert" in outcome.fault
    assert not outcome.target.exists()


def test_a_video_that_cannot_be_written_is_an_error(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mp4", halves(96, 64), steady(3))
    (tmp_path / "out" / "clip.mp4").mkdir(parents=True)  # where a file should go
    (tmp_path / "out" / "clip").touch()  # where a folder should go
    for wanted in (Format.OVERLAY, Format.PNG):
        outcome = run(segmenter, source, tmp_path / "out", wanted)
        assert outcome.state == "failed"
        assert "cannot be written" in outcome.fault


def test_skip_existing_continues_within_frames(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mp4", halves(96, 64), steady(6))
    (tmp_path / "out" / "clip").mkdir(parents=True)
    for index in range(4):
        (tmp_path / "out" / "clip" / f"{index:06d}.png").write_bytes(b"earlier")
    assert run(segmenter, source, tmp_path / "out", Format.PNG, skip_existing=True).num_images == 2
    assert (tmp_path / "out" / "clip" / "000003.png").read_bytes() == b"earlier"
    assert run(segmenter, source, tmp_path / "out", Format.PNG, skip_existing=True).state == "skipped"
    run(segmenter, source, tmp_path / "out")
    assert run(segmenter, source, tmp_path / "out", skip_existing=True).state == "skipped"


def test_the_expected_number_of_frames(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.mkv"):  # the second knows its length only
        path = write_video(tmp_path / name, halves(96, 64), steady(20))
        with Reader(path) as reader:
            assert reader.num_expected == 20
        with Reader(path, every=3) as reader:
            assert reader.num_expected == len(list(reader)) == 7


def test_a_name_is_never_taken_for_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", halves(96, 64), steady(3)).rename(tmp_path / "http:clip.mp4")
    with Reader(Path("http:clip.mp4")) as reader:
        assert len(list(reader)) == 3
    with pytest.raises(FileError):
        Reader(Path("http:other.mp4"))
