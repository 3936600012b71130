"""From probability to answer: resizing back, the threshold, and every format."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from roadseg_serve.messages import MEDIA_TYPES, Answer, AnswerOptions, Format, Frame, ModelName, Placement, Prediction
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.stages.postprocess import (
    answer,
    binarise,
    encode_jpeg,
    encode_png,
    overlay,
    resize_back,
    threshold_level,
)


def test_resize_back_crops_the_padding() -> None:
    prob_HW = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(resize_back(prob_HW, Placement(10, 7, 10, 7)), prob_HW[:10, :7])


def test_resize_back_restores_the_frame_size() -> None:
    prob_HW = np.zeros((16, 16), np.uint8)
    prob_HW[:, 5:] = 255  # beyond the frame's edge at 5: must not bleed in
    frame_HW = resize_back(prob_HW, Placement(300, 101, 16, 5))
    assert frame_HW.shape == (300, 101)
    assert not frame_HW.any()


def test_resize_back_interpolates_between_pixel_centres() -> None:
    prob_HW = np.array([[0, 100]], np.uint8)
    # The four frame pixels have their centres at 0.25, 0.75, 1.25, 1.75; the two input pixels at 0.5, 1.5.
    assert resize_back(prob_HW, Placement(1, 4, 1, 2)).tolist() == [[0, 25, 75, 100]]


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


def test_the_jpeg_restores_the_mask() -> None:
    picture = Image.new("L", (481, 359))
    draw = ImageDraw.Draw(picture)
    draw.polygon([(30, 358), (200, 140), (260, 141), (470, 358)], fill=255)  # a road
    draw.ellipse((210, 200, 283, 251), fill=0)  # a car on it
    for x in range(0, 480, 7):
        draw.line((x, 20, x + 90, 77), fill=255)  # one-pixel slants, worse than any road
    mask_HW = np.asarray(picture)
    decoded = Image.open(io.BytesIO(encode_jpeg(mask_HW)))
    assert (decoded.format, decoded.mode, decoded.size) == ("JPEG", "L", (481, 359))
    assert np.array_equal(np.asarray(decoded) >= 128, mask_HW == 255)


def test_png_is_lossless() -> None:
    image_HW = np.arange(256, dtype=np.uint8).reshape(8, 32)
    decoded = Image.open(io.BytesIO(encode_png(image_HW)))
    assert (decoded.format, decoded.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(decoded), image_HW)


def test_overlay_colours_the_road_and_nothing_else() -> None:
    picture_HWC = np.array([[[0, 0, 0], [255, 255, 255], [100, 50, 200], [100, 50, 200]]], np.uint8)
    before_HWC = picture_HWC.copy()
    image_HWC = overlay(picture_HWC, np.array([[255, 255, 255, 0]], np.uint8))
    assert image_HWC.dtype == np.uint8
    # (125 * picture + 130 * (26, 200, 110)) / 255, to nearest: 13.3, 102.0, 56.1 on black, 125 more on white.
    assert image_HWC.tolist() == [[[13, 102, 56], [138, 227, 181], [62, 126, 154], [100, 50, 200]]]
    assert np.array_equal(picture_HWC, before_HWC)  # the caller's array stays as it was


def test_overlay_is_not_shifted() -> None:
    rng = np.random.default_rng(0)
    picture_HWC = rng.integers(0, 256, (37, 53, 3), np.uint8)
    mask_HW = rng.integers(0, 2, (37, 53), np.uint8) * np.uint8(255)
    blend_HWC = np.rint((125.0 * picture_HWC + 130.0 * np.array([26, 200, 110])) / 255)
    expected_HWC = np.where(mask_HW[..., None] == 255, blend_HWC, picture_HWC)
    assert np.array_equal(overlay(picture_HWC, mask_HW), expected_HWC)


# 3 wide, 2 high; at the model's own threshold of 0.5 the first column and the pixel at the bottom right are road.
PROB_HW = np.array([[200, 0, 100], [130, 90, 255]], np.uint8)
PICTURE_HWC = np.full((2, 3, 3), 80, np.uint8)


def answer_of(options: AnswerOptions, default_threshold: float | None = None, prob_HW: Any = PROB_HW) -> Answer:
    height, width = prob_HW.shape
    placement = Placement(height, width, height, width)
    prediction = Prediction(
        prob_HW, placement, threshold=0.5, model=ModelName("red", "1"), times_s={"decode": 0.25, "infer": 0.0014}
    )
    rule = SizeRule(short_side_px=16, max_long_side_px=16, multiple_px=1)
    frame = Frame(PICTURE_HWC, placement, rule, picture_HWC=PICTURE_HWC)
    return answer(prediction, options, frame if options.format is Format.OVERLAY else None, default_threshold)


@pytest.mark.parametrize("form", Format)
def test_every_format_has_model_road_share_and_times(form: Format) -> None:
    made = answer_of(AnswerOptions(form))
    assert made.media_type == MEDIA_TYPES[form]
    assert made.model == ModelName("red", "1")
    assert made.road_share == 0.5
    assert list(made.times_s) == ["decode", "infer", "encode"]
    assert made.times_s["encode"] > 0
    if form is not Format.JSON:
        assert Image.MIME[str(Image.open(io.BytesIO(made.body)).format)] == made.media_type


def test_png_and_probability() -> None:
    mask_HW = np.asarray(Image.open(io.BytesIO(answer_of(AnswerOptions(Format.PNG)).body)))
    assert mask_HW.tolist() == [[255, 0, 0], [255, 0, 255]]
    prob_HW = np.asarray(Image.open(io.BytesIO(answer_of(AnswerOptions(Format.PROBABILITY)).body)))
    assert np.array_equal(prob_HW, PROB_HW)


def test_overlay_is_a_colour_jpeg_of_the_picture() -> None:
    image = Image.open(
        io.BytesIO(answer_of(AnswerOptions(Format.OVERLAY), prob_HW=np.full((2, 3), 255, np.uint8)).body)
    )
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (3, 2))
    # 125 / 255 of the 80 and 130 / 255 of the green are 52.5, 141.2, 95.3.
    assert np.abs(np.asarray(image) - np.array([52.5, 141.2, 95.3])).max() < 4  # lossy


def test_json() -> None:
    document = json.loads(answer_of(AnswerOptions(Format.JSON)).body)
    png = base64.b64decode(document["mask"].pop("png_base64"))
    assert np.asarray(Image.open(io.BytesIO(png))).tolist() == [[255, 0, 0], [255, 0, 255]]
    assert document == {
        "road_share": 0.5,
        "width": 3,
        "height": 2,
        "threshold": 0.5,
        "model": {"name": "red", "version": "1"},
        "mask": {"rle": {"size": [2, 3], "counts": [0, 2, 3, 1]}},
    }


@pytest.mark.parametrize(
    ("options", "server", "share"),
    [
        (None, None, 3 / 6),  # the model's own 0.5
        (None, 0.7, 2 / 6),
        (0.3, 0.7, 5 / 6),
        (0.0, 0.7, 6 / 6),  # 0 is a options, not the lack of one
        (1.0, None, 1 / 6),
        (None, 0.0, 6 / 6),
    ],
)
def test_the_threshold_is_the_clients_then_the_servers_then_the_models(
    options: float | None, server: float | None, share: float
) -> None:
    made = answer_of(AnswerOptions(Format.PNG, options), server)
    assert made.road_share == share
    assert np.mean(np.asarray(Image.open(io.BytesIO(made.body))) == 255) == share
