import io

import numpy as np
import pytest
from PIL import Image

from roadseg_train.data.dataset import UInt8Array
from roadseg_train.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt, distance_m


def scene(height: int = 72, width: int = 96) -> UInt8Array:
    """A bright sky over dark, chequered ground."""
    image_HWC = np.full((height, width, 3), (170, 200, 230), dtype=np.uint8)
    rows, columns = np.mgrid[: height // 2, :width]
    image_HWC[height - height // 2 :] = (60 + 60 * ((rows // 6 + columns // 6) % 2))[..., None]
    return image_HWC


def flat(value: int, height: int = 60, width: int = 80) -> UInt8Array:
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_shape_and_input_are_kept_and_the_seed_repeats(kind: str) -> None:
    image_HWC = scene()
    before = image_HWC.copy()
    for severity in SEVERITIES:
        first = corrupt(image_HWC, kind, severity, seed=1)
        assert first.shape == image_HWC.shape
        assert first.dtype == np.uint8
        np.testing.assert_array_equal(first, corrupt(image_HWC, kind, severity, seed=1))
    np.testing.assert_array_equal(image_HWC, before)
    assert corrupt(flat(9, 1, 1), kind, 3, seed=0).shape == (1, 1, 3)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_higher_severities_change_more(kind: str) -> None:
    image_HWC = scene(360, 480)
    changes = [np.abs(corrupt(image_HWC, kind, s, seed=0) - image_HWC.astype(float)).mean() for s in SEVERITIES]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_distance_grows_towards_the_horizon() -> None:
    # The last row is 0.55 image heights below the horizon: 1.65 m * 1.92 / 0.55 = 5.8 m away, a little less because
    # the distance levels off at 80 m.
    away_m = distance_m(1000)
    assert away_m[-1] == pytest.approx(1 / (0.55 / (1.65 * 1.92) + 1 / 80), rel=1e-2)
    assert away_m.max() == pytest.approx(80, rel=0.02)
    assert away_m.argmax() in (449, 450)


def test_fog_does_not_change_an_image_of_its_own_colour() -> None:
    np.testing.assert_array_equal(corrupt(flat(140), "fog", 3, seed=0), flat(140))


def test_fog_hides_distant_rows_more() -> None:
    # black ground under white sky: light = 1 - exp(-0.06 per metre * distance)
    image_HWC = flat(0, 1000, 4)
    image_HWC[:450] = 255
    foggy = corrupt(image_HWC, "fog", 3, seed=0)
    for row in (460, 700, 999):
        light = 1 - np.exp(-0.06 * distance_m(1000)[row])
        assert foggy[row, 0, 0] == pytest.approx(255 * light ** (1 / 2.2), abs=1)


def test_dark_reduces_light_and_adds_photon_noise() -> None:
    dim = corrupt(flat(200, 200, 200), "dark", 2, seed=0)
    light, expected = (dim / 255) ** 2.2, (200 / 255) ** 2.2 / 10
    assert light.mean() == pytest.approx(expected, rel=0.01)
    # white is 4000 electrons; the variance is their number, plus 4 squared of read-out noise
    electrons = expected * 4000
    assert light.std() * 4000 == pytest.approx(np.sqrt(electrons + 16), rel=0.05)


def test_blur_turns_a_point_into_a_disc() -> None:
    np.testing.assert_array_equal(corrupt(flat(77), "blur", 3, seed=0), flat(77))
    image_HWC = flat(0, 361, 361)
    image_HWC[180, 180] = 255
    light = (corrupt(image_HWC, "blur", 3, seed=0)[..., 0] / 255) ** 2.2
    lit = light > light.max() / 2
    rows, columns = np.nonzero(lit)
    distance = np.hypot(rows - 180, columns - 180)
    assert distance.max() == pytest.approx(6, abs=0.5)
    assert lit.sum() == pytest.approx(np.pi * 6**2, rel=0.1)


def test_noise_has_the_documented_sigma() -> None:
    noisy = corrupt(flat(128, 200, 200), "noise", 1, seed=0)
    assert noisy.std() == pytest.approx(0.06 * 255, rel=0.02)


def test_jpeg_matches_pillow() -> None:
    file = io.BytesIO()
    Image.fromarray(scene()).save(file, "JPEG", quality=5)
    np.testing.assert_array_equal(corrupt(scene(), "JPEG", 3, seed=0), np.asarray(Image.open(file)))


def test_rain_adds_bright_streaks_in_places_that_the_seed_decides() -> None:
    image_HWC = flat(20, 360, 480)
    image_HWC[:100] = 220  # airlight takes the brightness of the sky
    first, second = corrupt(image_HWC, "rain", 2, seed=1), corrupt(image_HWC, "rain", 2, seed=2)
    assert (first[100:] >= 20).all()
    assert not np.array_equal(first, second)
    last = first[-1, :, 0].astype(int)
    assert np.median(last) < 70 < last.max()  # near the camera there is little haze between the streaks
