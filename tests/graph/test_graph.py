"""The whole graph in one process, with a model that answers red / 255, checked pixel by pixel."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from roadseg_serve.errors import DamagedImageError, ImageTooLargeError, NotAnImageError
from roadseg_serve.messages import Answer, ModelName
from tests.graph.conftest import Segment

# left, top, right, bottom in pixels; right and bottom excluded
Box = tuple[int, int, int, int]


def file_of(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(picture: Image.Image) -> bytes:
    return file_of(picture, "PNG")


def picture_of(size: tuple[int, int], box: Box) -> Image.Image:
    picture = Image.new("RGB", size, (0, 90, 255))
    picture.paste((255, 90, 255), box)
    return picture


def road(answer: Answer) -> npt.NDArray[np.bool_]:
    picture = Image.open(io.BytesIO(answer.body))
    assert (picture.format, picture.mode) == ("JPEG", "L")
    return np.asarray(picture) >= 128


def expected(size: tuple[int, int], box: Box) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = box
    road_HW = np.zeros((size[1], size[0]), bool)
    road_HW[top:bottom, left:right] = True
    return road_HW


@pytest.mark.parametrize(
    ("size", "box"),
    [
        # At the model's own size (short side 64, multiples of 16) nothing is resized or padded.
        ((64, 64), (3, 5, 40, 21)),
        ((160, 64), (101, 0, 160, 64)),
        # Padded on the right: 64 x 71 becomes 64 x 80; a mask that is shifted would show.
        ((71, 64), (60, 10, 71, 50)),
        # A quarter: 4 px of the frame are one of the input. Straight edges between input pixels stay where
        # they are, because the blur of both resizes is symmetric; corners would be rounded.
        ((256, 256), (64, 0, 192, 256)),
        ((256, 256), (0, 32, 256, 128)),
        ((640, 128), (320, 0, 640, 128)),
        # All road, none, and the smallest frame.
        ((333, 217), (0, 0, 333, 217)),
        ((333, 217), (0, 0, 0, 0)),
        ((1, 1), (0, 0, 1, 1)),
        ((1, 1), (0, 0, 0, 0)),
    ],
)
def test_mask_is_the_red_box_to_the_pixel(segment: Segment, size: tuple[int, int], box: Box) -> None:
    assert np.array_equal(road(segment(png(picture_of(size, box)))), expected(size, box))


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((301, 203), (50, 60, 151, 161)),
        ((203, 301), (50, 60, 151, 161)),
        ((1242, 375), (101, 77, 803, 300)),
        ((8000, 200), (1000, 0, 7000, 200)),
        ((200, 8000), (0, 1000, 200, 7000)),
        ((13, 7), (2, 2, 9, 6)),
        ((1, 700), (0, 100, 1, 300)),
    ],
)
def test_an_edge_moves_by_no_more_than_one_input_pixel(segment: Segment, size: tuple[int, int], box: Box) -> None:
    road_HW = road(segment(png(picture_of(size, box))))
    assert road_HW.shape == (size[1], size[0])
    # One input pixel in frame pixels: the size rule scales by min(64 / short, 160 / long).
    slack = np.ceil(1 / min(64 / min(size), 160 / max(size))).astype(int)
    left, top, right, bottom = box
    grown: Box = (max(0, left - slack), max(0, top - slack), right + slack, bottom + slack)
    inner = [
        left + slack * (left > 0),
        top + slack * (top > 0),
        right - slack * (right < size[0]),
        bottom - slack * (bottom < size[1]),
    ]
    assert not (road_HW & ~expected(size, grown)).any()
    assert (road_HW | ~expected(size, (inner[0], inner[1], inner[2], inner[3]))).all()
    # And it moves as much to one side as to the other: the middle stays.
    rows, columns = np.nonzero(road_HW)
    assert abs(columns.mean() - (left + right - 1) / 2) <= slack / 2
    assert abs(rows.mean() - (top + bottom - 1) / 2) <= slack / 2


# EXIF orientation -> where the stored top left corner goes in the upright frame.
@pytest.mark.parametrize(
    ("orientation", "corner"),
    [
        (1, "top left"),
        (2, "top right"),
        (3, "bottom right"),
        (4, "bottom left"),
        (5, "top left"),
        (6, "top right"),
        (7, "bottom right"),
        (8, "bottom left"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 100, "subsampling": 0})],
)
def test_exif_orientation_turns_the_mask_upright(
    segment: Segment, orientation: int, corner: str, kind: str, options: dict[str, Any]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # Stored 128 wide and 64 high; the red block in its top left corner is 32 wide and 16 high.
    road_HW = road(segment(file_of(picture_of((128, 64), (0, 0, 32, 16)), kind, exif=exif, **options)))
    sideways = orientation >= 5
    height, width = (128, 64) if sideways else (64, 128)
    block_height, block_width = (32, 16) if sideways else (16, 32)
    top = 0 if "top" in corner else height - block_height
    left = 0 if "left" in corner else width - block_width
    box = (left, top, left + block_width, top + block_height)
    assert np.array_equal(road_HW, expected((width, height), box))


def test_answer_names_the_model(segment: Segment) -> None:
    assert segment(png(picture_of((64, 64), (0, 0, 8, 8)))).model == ModelName("red", "1")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"no picture at all", NotAnImageError),
        (png(picture_of((64, 64), (0, 0, 8, 8)))[:80], DamagedImageError),
        (png(Image.new("1", (10_001, 5000))), ImageTooLargeError),
    ],
)
def test_a_bad_upload_is_refused_and_the_graph_goes_on(segment: Segment, data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        segment(data)
    assert road(segment(png(picture_of((64, 64), (0, 0, 64, 64))))).all()
