from pathlib import Path

import numpy as np
import pytest

from roadseg_train.data.dataset import Frame
from roadseg_train.evaluate.bootstrap import NUM_RESAMPLES, SEED, bootstrap, split_into_blocks
from roadseg_train.metrics import Histogram


def drive(name: str, count: int, part: str = "train") -> list[Frame]:
    return [Frame(f"{name}_{i}", "D", part, name, "camvid", Path(f"{name}_{i}"), Path("m")) for i in range(count)]


def block(found: int, false: int, missed: int) -> Histogram:
    """Pixels of road with probability 1, of not road with probability 1, and of road with probability 0."""
    road, not_road = np.zeros(256, np.int64), np.zeros(256, np.int64)
    road[255], not_road[255], road[0] = found, false, missed
    return Histogram(road, not_road)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (9, [9]), (14, [14]), (16, [8, 8]), (25, [13, 12]), (41, [11, 10, 10, 10])]
)
def test_a_drive_is_split_into_equal_blocks_of_about_ten(count: int, sizes: list[int]) -> None:
    assert [len(b) for b in split_into_blocks(drive("a", count))] == sizes


def test_no_block_crosses_a_drive_or_a_part() -> None:
    frames = drive("a", 12) + drive("b", 3) + drive("b", 4, "val")
    blocks = split_into_blocks(frames)
    assert blocks == [list(range(12)), [12, 13, 14], [15, 16, 17, 18]]


def test_intervals_match_scoring_each_resample_separately() -> None:
    counts = [(80, 10, 10), (50, 40, 5), (90, 0, 1), (10, 30, 60), (70, 7, 7), (33, 3, 30)]
    blocks = [block(*c) for c in counts]
    found = bootstrap(blocks, threshold=0.5)
    assert found is not None
    rng, ious, f1s, max_fs = np.random.default_rng(SEED), [], [], []
    for drawn in rng.integers(0, len(counts), (NUM_RESAMPLES, len(counts))):
        tp, fp, fn = np.sum([counts[i] for i in drawn], axis=0)
        ious.append(tp / (tp + fp + fn))
        f1s.append(2 * tp / (2 * tp + fp + fn))
        # the alternative is threshold 0, where every pixel counts as road
        max_fs.append(max(f1s[-1], 2 * (tp + fn) / (2 * (tp + fn) + fp)))
    for interval, scores in ((found.road_iou, ious), (found.f1, f1s), (found.max_f, max_fs)):
        # 2.5 % of 1,000: between the 25th and the 26th from either end
        ordered = sorted(scores)
        assert ordered[24] <= interval.low <= ordered[25]
        assert ordered[974] <= interval.high <= ordered[975]


def test_identical_blocks_give_an_interval_without_width() -> None:
    found = bootstrap([block(6, 2, 2)] * 5, threshold=0.5)
    assert found is not None
    assert found.road_iou.low == found.road_iou.high == pytest.approx(0.6)


def test_too_few_blocks_give_no_interval() -> None:
    assert bootstrap([block(6, 2, 2)] * 4, threshold=0.5) is None
