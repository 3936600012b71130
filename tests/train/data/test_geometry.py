import numpy as np
import pytest

from roadseg_train.data.geometry import SizeRule, fit, unfit

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


def test_fit_repeats_the_right_and_bottom_edge() -> None:
    image_HWC = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    fitted = fit(image_HWC, SizeRule(short_side_px=3, max_long_side_px=99, multiple_px=4))
    assert fitted.shape == (4, 8, 3)
    np.testing.assert_array_equal(fitted[:3, :5], image_HWC)
    np.testing.assert_array_equal(fitted[3, :5], image_HWC[2])
    np.testing.assert_array_equal(fitted[:3, 7], image_HWC[:, 4])


def test_unfit_undoes_fit_where_nothing_is_scaled() -> None:
    image_HWC = np.random.default_rng(0).integers(0, 256, (33, 50, 3), dtype=np.uint8)
    rule = SizeRule(short_side_px=33, max_long_side_px=99, multiple_px=16)
    np.testing.assert_array_equal(unfit(fit(image_HWC, rule)[..., 0], rule, 33, 50), image_HWC[..., 0])


def test_an_edge_stays_where_it_was() -> None:
    # A white half, scaled down by three and back: the mask's edge may not move.
    image_HWC = np.zeros((90, 120, 3), dtype=np.uint8)
    image_HWC[:, 60:] = 255
    rule = SizeRule(short_side_px=30, max_long_side_px=99, multiple_px=16)
    mask = unfit(fit(image_HWC, rule)[..., 0], rule, 90, 120) >= 128
    np.testing.assert_array_equal(mask, image_HWC[..., 0] == 255)
