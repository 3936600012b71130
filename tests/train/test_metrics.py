import numpy as np
import pytest

from roadseg_train.dataset import NOT_ROAD, ROAD, VOID
from roadseg_train.metrics import confusion, f1, histogram, iou, max_f, score, threshold_level

PROB = np.array([[255, 200, 128, 127, 0, 255]], dtype=np.uint8)
TARGET = np.array([[ROAD, NOT_ROAD, ROAD, ROAD, NOT_ROAD, VOID]], dtype=np.uint8)


def test_by_hand_at_one_half() -> None:
    # called road: 255 and 128 rightly, 200 wrongly; 127 is missed; the void pixel counts nowhere
    counts = confusion(histogram(PROB, TARGET))
    assert [int(c[128]) for c in (counts.true_positive, counts.false_positive, counts.false_negative)] == [2, 1, 1]
    assert iou(counts)[128] == pytest.approx(2 / 4)
    assert f1(counts)[128] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_max_f_by_hand() -> None:
    # at 1..127 all three road pixels are found beside one false one: F = 6 / 7, and no threshold does better
    assert max_f(confusion(histogram(PROB, TARGET))) == pytest.approx(6 / 7)


def test_every_threshold_against_counting_one_by_one() -> None:
    rng = np.random.default_rng(0)
    prob_HW, target_HW = rng.integers(0, 256, (20, 30), dtype=np.uint8), rng.integers(0, 3, (20, 30), dtype=np.uint8)
    counts = confusion(histogram(prob_HW, target_HW))
    for level in range(256):
        called, road, other = prob_HW >= level, target_HW == ROAD, target_HW == NOT_ROAD
        assert counts.true_positive[level] == np.sum(called & road)
        assert counts.false_positive[level] == np.sum(called & other)
        assert counts.false_negative[level] == np.sum(~called & road)


def test_nothing_to_find_and_nothing_claimed_is_perfect() -> None:
    counts = confusion(histogram(np.zeros((2, 2), np.uint8), np.full((2, 2), NOT_ROAD, np.uint8)))
    assert iou(counts)[128] == f1(counts)[128] == 1


def test_dataset_iou_pools_and_mean_iou_does_not() -> None:
    # a picture of 8 road pixels all found, one of 2 all missed
    found = histogram(np.full((1, 8), 255, np.uint8), np.full((1, 8), ROAD, np.uint8))
    missed = histogram(np.zeros((1, 2), np.uint8), np.full((1, 2), ROAD, np.uint8))
    scores = score([found, missed], threshold=0.5)
    assert scores.road_iou == pytest.approx(0.8)
    assert scores.mean_image_iou == pytest.approx(0.5)
    assert scores.f1 == pytest.approx(16 / 18)
    assert scores.max_f == pytest.approx(1.0)  # at threshold 0 everything is road, and everything is


@pytest.mark.parametrize(("threshold", "level"), [(0.0, 0), (0.5, 128), (0.2, 51), (0.201, 52), (1.0, 255)])
def test_threshold_level(threshold: float, level: int) -> None:
    assert threshold_level(threshold) == level
