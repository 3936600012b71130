"""From probability to mask: the way back, the threshold, the JPEG."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from roadseg_serve.messages import Placement
from roadseg_serve.postprocess import binarise, encode, threshold_level, unfit


def test_unfit_crops_the_padding() -> None:
    prob_HW = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(unfit(prob_HW, Placement(10, 7, 10, 7)), prob_HW[:10, :7])


def test_unfit_resizes_to_the_frame() -> None:
    prob_HW = np.zeros((16, 16), np.uint8)
    prob_HW[:, 5:] = 255  # beyond the frame's edge at 5: must not bleed in
    frame_HW = unfit(prob_HW, Placement(300, 101, 16, 5))
    assert frame_HW.shape == (300, 101)
    assert not frame_HW.any()


def test_unfit_interpolates_between_pixel_centres() -> None:
    prob_HW = np.array([[0, 100]], np.uint8)
    # The four frame pixels have their centres at 0.25, 0.75, 1.25, 1.75; the two input pixels at 0.5, 1.5.
    assert unfit(prob_HW, Placement(1, 4, 1, 2)).tolist() == [[0, 25, 75, 100]]


@pytest.mark.parametrize(
    ("threshold", "level"),
    [(0.0, 0), (1.0, 255), (0.5, 128), (0.2, 51), (0.6, 153), (0.001, 1), (0.999, 255)],
)
def test_threshold_level(threshold: float, level: int) -> None:
    assert threshold_level(threshold) == level


def test_every_level_is_its_own_threshold() -> None:
    assert [threshold_level(level / 255) for level in range(256)] == list(range(256))


def test_binarise() -> None:
    prob_HW = np.array([[0, 127, 128, 255]], np.uint8)
    mask_HW = binarise(prob_HW, 0.5)
    assert mask_HW.dtype == np.uint8
    assert mask_HW.tolist() == [[0, 0, 255, 255]]


def test_the_jpeg_gives_the_mask_back() -> None:
    picture = Image.new("L", (481, 359))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(30, 358), (200, 140), (260, 141), (470, 358)], fill=255)  # a road
    draw.ellipse((210, 200, 283, 251), fill=0)  # a car on it
    for x in range(0, 480, 7):
        draw.line((x, 20, x + 90, 77), fill=255)  # one-pixel slants, worse than any road
    mask_HW = np.asarray(picture)
    decoded = Image.open(io.BytesIO(encode(mask_HW)))
    assert (decoded.format, decoded.mode, decoded.size) == ("JPEG", "L", (481, 359))
    assert np.array_equal(np.asarray(decoded) >= 128, mask_HW == 255)
