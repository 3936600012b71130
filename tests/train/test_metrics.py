import numpy as np
import pytest

from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID
from roadseg_train.metrics import (
    Histogram,
    KittiScores,
    confusion,
    f1,
    histogram,
    iou,
    kitti_scores,
    max_f,
    pool,
    score,
    threshold_level,
)

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


def kitti(road: dict[int, int], not_road: dict[int, int]) -> KittiScores | None:
    counts = np.zeros((2, 256), dtype=np.int64)
    for row, levels in zip(counts, (road, not_road), strict=True):
        for level, number in levels.items():
            row[level] = number
    return kitti_scores(confusion(Histogram(*counts)))


def test_kitti_by_hand() -> None:
    # Ten road pixels: 6 at 200, 2 at 100, 2 at 0. Ten others: 2 at 150, 8 at 0.
    # called from   201: nothing, left out     151..200: TP 6 FP 0, P 1,    R 0.6, F 12/16 = 0.75
    #          101..150: TP 6 FP 2, P 0.75     1..100:   TP 8 FP 2, P 0.8,  R 0.8, F 16/20 = 0.8   <- best, from 1
    #                 0: TP 10 FP 10, P 0.5, R 1, F 20/30
    scores = kitti({200: 6, 100: 2, 0: 2}, {150: 2, 0: 8})
    assert scores is not None
    assert scores.model_dump() == pytest.approx(
        {
            "max_f": 0.8,
            # recall 0 to 0.5: 1; recall 0.6 = 6/10 lies just under the sixth step's 0.6000000000000001, so 0.8, as for
            # 0.7 and 0.8; then 0.5 twice
            "average_precision": (6 * 1 + 3 * 0.8 + 2 * 0.5) / 11,
            "precision": 0.8,
            "recall": 0.8,
            "false_positive_rate": 0.2,
            "false_negative_rate": 0.2,
            "threshold": 1 / 255,
        }
    )


def test_kitti_against_its_definition_step_by_step() -> None:
    # Written from the definition, over pixels and thresholds as they come: nothing is shared with the module.
    rng = np.random.default_rng(3)
    road = rng.uniform(size=4000) < 0.3
    confidence = (255 * np.clip(rng.normal(0.35 + 0.3 * road, 0.2), 0, 1)).astype(np.uint8)
    points = []
    for level in range(256):
        claimed = confidence / 255 >= level / 255
        tp, fp = np.sum(claimed & road), np.sum(claimed & ~road)
        fn, tn = np.sum(~claimed & road), np.sum(~claimed & ~road)
        if tp > 0:
            precision, recall = tp / (tp + fp), tp / (tp + fn)
            f = 2 * precision * recall / (precision + recall)
            points.append((f, precision, recall, fp / (fp + tn), fn / (tp + fn), level / 255))
    best = max(points, key=lambda point: point[0])
    average = sum(max(p for _, p, r, *_ in points if r >= step * 0.1) for step in range(11)) / 11
    scores = kitti_scores(confusion(histogram(confidence[None], np.where(road, ROAD, NOT_ROAD).astype(np.uint8)[None])))
    assert scores is not None
    f, precision, recall, fpr, fnr, threshold = best
    assert list(scores.model_dump().values()) == pytest.approx([f, average, precision, recall, fpr, fnr, threshold])


def test_kitti_at_the_ends() -> None:
    assert kitti({}, {0: 5}) is None  # no road in the truth
    perfect = kitti({255: 5}, {})  # nothing else in the truth
    assert perfect is not None
    assert (perfect.max_f, perfect.average_precision, perfect.false_positive_rate) == (1, 1, 0)


def test_pictures_are_scored_together_or_in_a_stack() -> None:
    one, two = histogram(PROB, TARGET), histogram(255 - PROB, TARGET)
    both = confusion(Histogram(np.stack([one.road, two.road]), np.stack([one.not_road, two.not_road])))
    for i, single in enumerate((one, two)):
        np.testing.assert_array_equal(iou(both)[i], iou(confusion(single)))
        np.testing.assert_array_equal(f1(both)[i], f1(confusion(single)))
    np.testing.assert_array_equal(pool([one, two]).road, one.road + two.road)
