import numpy as np
import pytest

from roadseg_train.evaluate.reliability import measure_reliability
from roadseg_train.metrics import Histogram


def counts(**pixels_at_level: tuple[int, int]) -> Histogram:
    """(road, not road) pixels at each level, such as p51=(10, 20)."""
    road, not_road = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for level, pixels in pixels_at_level.items():
        road[int(level[1:])], not_road[int(level[1:])] = pixels
    return Histogram(road, not_road)


def test_reliability_computed_by_hand() -> None:
    # 30 pixels with probability 0.2, of which a third is road, and 10 with probability 1, which all are.
    found = measure_reliability(counts(p51=(10, 20), p255=(10, 0)))
    assert found is not None
    first, last = found.bins
    assert (first.mean_probability, first.road_share, first.num_pixels) == pytest.approx((0.2, 1 / 3, 30))
    assert (last.mean_probability, last.road_share, last.num_pixels) == pytest.approx((1, 1, 10))
    assert found.ece == pytest.approx(30 / 40 * (1 / 3 - 0.2))


def test_a_bin_averages_its_levels_by_pixels() -> None:
    # 120 and 135 are between 7/15 and 8/15 of 255: over- and underconfidence cancel within a bin. 136 is in the next.
    found = measure_reliability(counts(p120=(3, 0), p135=(0, 1), p136=(0, 1)))
    assert found is not None
    first, second = found.bins
    assert first.num_pixels == 4
    assert first.mean_probability == pytest.approx((3 * 120 + 135) / 4 / 255)
    assert first.road_share == 0.75
    assert (second.mean_probability, second.road_share) == pytest.approx((136 / 255, 0))


def test_every_labelled_pixel_is_counted() -> None:
    rng = np.random.default_rng(0)
    road, not_road = rng.integers(0, 9, (2, 256))
    found = measure_reliability(Histogram(road, not_road))
    assert found is not None
    assert len(found.bins) == 15
    assert sum(b.num_pixels for b in found.bins) == road.sum() + not_road.sum()


def test_without_labelled_pixels_there_is_none() -> None:
    assert measure_reliability(counts()) is None
