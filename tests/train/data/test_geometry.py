from fractions import Fraction

import numpy as np
import pytest

from roadseg_train.data.geometry import SizeRule, crop_and_scale_back, resize_labels, scale_and_pad

RULE = SizeRule(short_side_px=360, max_long_side_px=2048, multiple_px=16)


@pytest.mark.parametrize(
    ("height", "width", "scaled"),
    [
        (360, 480, (360, 480)),  # CamVid as it is
        (375, 1242, (360, 1192)),  # KITTI: 1242 * 0.96 = 1192.32
        (720, 1280, (360, 640)),
        (1280, 720, (640, 360)),
        (200, 8000, (51, 2048)),  # the long side decides: 200 * 0.256 = 51.2
        (1, 1, (360, 360)),
        (1, 9000, (1, 2048)),  # 1 * 0.23 rounds to nothing, but a side is at least one pixel
    ],
)
def test_scale(height: int, width: int, scaled: tuple[int, int]) -> None:
    assert RULE.scale(height, width) == scaled


def test_padding_repeats_the_right_and_bottom_edge() -> None:
    image_HWC = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    fitted = scale_and_pad(image_HWC, SizeRule(short_side_px=3, max_long_side_px=99, multiple_px=4))
    assert fitted.shape == (4, 8, 3)
    np.testing.assert_array_equal(fitted[:3, :5], image_HWC)
    np.testing.assert_array_equal(fitted[3, :5], image_HWC[2])
    np.testing.assert_array_equal(fitted[:3, 7], image_HWC[:, 4])


def test_scaling_is_undone_where_nothing_is_scaled() -> None:
    image_HWC = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)
    rule = SizeRule(short_side_px=33, max_long_side_px=99, multiple_px=16)
    np.testing.assert_array_equal(
        crop_and_scale_back(scale_and_pad(image_HWC, rule)[..., 0], rule, 33, 50), image_HWC[..., 0]
    )


def test_an_edge_stays_where_it_was() -> None:
    # A white half, scaled down by three and back: the mask's edge may not move.
    image_HWC = np.zeros((90, 120, 3), dtype=np.uint8)
    image_HWC[:, 60:] = 255
    rule = SizeRule(short_side_px=30, max_long_side_px=99, multiple_px=16)
    mask = crop_and_scale_back(scale_and_pad(image_HWC, rule)[..., 0], rule, 90, 120) >= 128
    np.testing.assert_array_equal(mask, image_HWC[..., 0] == 255)


@pytest.mark.parametrize("size", [(45, 63), (20, 27), (33, 90), (7, 200)])
def test_labels_come_from_the_nearest_pixel_centre(size: tuple[int, int]) -> None:
    labels_HW = np.random.default_rng(0).integers(0, 12, (45, 63), dtype=np.uint8)
    # The centre of pixel i of n lies at (i + 1/2) / n of the side, with odd sides never between two pixels.
    rows, columns = (
        [int(Fraction(2 * i + 1, 2 * new) * old) for i in range(new)]
        for old, new in zip(labels_HW.shape, size, strict=True)
    )
    np.testing.assert_array_equal(resize_labels(labels_HW, *size), labels_HW[np.ix_(rows, columns)])
