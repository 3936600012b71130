from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame, find_frames
from roadseg_train.data.split import select
from roadseg_train.errors import RunError
from roadseg_train.evaluate.corruptions import CORRUPTIONS
from roadseg_train.evaluate.evaluate import (
    Evaluation,
    measure_reliability,
    measure_robustness,
    read_evaluation,
    spread,
)
from roadseg_train.metrics import Histogram, confusion, iou
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.network.views import Views
from roadseg_train.storage.path import storage_path

Evaluate = Callable[..., Evaluation]


def test_scores_by_drive_and_overlap_with_training(evaluate: Evaluate) -> None:
    honest = evaluate(fitted_on="fit")
    assert (honest.num_images, set(honest.by_drive), honest.dataset) == (4, {"0001TP", "0006R0"}, "CamVid")
    assert not honest.seen_in_training
    # each drive has two images: the mean over all is the mean of the two drives' means
    means = [scores.mean_image_iou for scores in honest.by_drive.values()]
    assert honest.overall.mean_image_iou == pytest.approx(sum(means) / 2)
    assert evaluate(fitted_on="train").seen_in_training


def test_overlap_with_training_is_found_if_the_data_has_moved(tmp_path: Path, camvid: Path, evaluate: Evaluate) -> None:
    (tmp_path / "elsewhere").symlink_to(camvid)
    moved = select(find_frames(tmp_path / "elsewhere"), "heldout")
    assert evaluate(fitted_on="train", frames=moved).seen_in_training
    assert not evaluate(fitted_on="fit", frames=moved).seen_in_training


def test_the_pooled_scores_follow_from_the_counts(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    counts = confusion(Histogram(np.array(evaluation.road_at_level), np.array(evaluation.not_road_at_level)))
    assert iou(counts)[128] == evaluation.overall.road_iou
    assert evaluation.overall_detail.kitti is not None
    assert evaluation.overall_detail.kitti.max_f == evaluation.overall.max_f
    assert evaluation.reliability is not None
    num_pixels = sum(evaluation.road_at_level) + sum(evaluation.not_road_at_level)
    assert sum(b.num_pixels for b in evaluation.reliability.bins) == num_pixels


def test_details_of_all_and_of_each_drive(evaluate: Evaluate) -> None:
    evaluation = evaluate(split="train", fitted_on="val")
    assert evaluation.overall_detail.num_images == 20
    assert {drive: detail.num_images for drive, detail in evaluation.detail_by_drive.items()} == {
        "0001TP": 10,
        "0006R0": 10,
    }
    assert evaluation.overall_detail.intervals is None  # two blocks are too few


def test_one_image_is_enough(evaluate: Evaluate, frames: list[Frame]) -> None:
    evaluation = evaluate(frames=frames[:1])
    assert evaluation.num_images == 1
    assert evaluation.overall.mean_image_iou == evaluation.overall.road_iou


def test_robustness_uses_the_requested_number_of_frames(evaluate: Evaluate) -> None:
    assert evaluate().robustness is None
    robustness = evaluate(num_robustness_frames=1).robustness
    assert robustness is not None
    assert robustness.num_frames == 1


def test_an_evaluation_is_read_back_as_written(tmp_path: Path, evaluate: Evaluate) -> None:
    evaluation = evaluate(num_robustness_frames=1)
    path = tmp_path / "metrics.json"
    path.write_text(evaluation.model_dump_json())
    assert read_evaluation(storage_path(path)) == evaluation
    with pytest.raises(RunError, match="make it with roadseg-train evaluate"):
        read_evaluation(storage_path(tmp_path / "other.json"))
    path.write_text("{}")
    with pytest.raises(RunError, match="evaluate again"):
        read_evaluation(storage_path(path))


def test_fields_that_older_versions_did_not_write_have_defaults(tmp_path: Path, evaluate: Evaluate) -> None:
    evaluation = evaluate()
    assert (evaluation.run, evaluation.step, evaluation.data) == ("runs/first", 6, ["data/CamVid"])
    (tmp_path / "metrics.json").write_text(evaluation.model_dump_json(exclude={"mirror", "scales"}))
    assert read_evaluation(storage_path(tmp_path / "metrics.json")).views == Views()


def test_the_score_is_that_of_the_program(evaluate: Evaluate, program: RoadProgram) -> None:
    # With all weights of the head at zero, its bias decides: everything is road.
    network = program.network
    assert isinstance(network, UNet)
    network.head.weight.data.zero_()
    assert network.head.bias is not None
    network.head.bias.data.fill_(9.0)
    evaluation = evaluate()
    road, labelled = sum(evaluation.road_at_level), sum(evaluation.road_at_level) + sum(evaluation.not_road_at_level)
    assert evaluation.overall.road_iou == pytest.approx(road / labelled)


def counts_of(**pixels_at_level: tuple[int, int]) -> Histogram:
    """(road, not road) pixels at each level, such as p51=(10, 20)."""
    road, not_road = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for level, pixels in pixels_at_level.items():
        road[int(level[1:])], not_road[int(level[1:])] = pixels
    return Histogram(road, not_road)


def test_reliability_computed_by_hand() -> None:
    # 30 pixels with probability 0.2, of which a third is road, and 10 with probability 1, which all are.
    found = measure_reliability(counts_of(p51=(10, 20), p255=(10, 0)))
    assert found is not None
    first, last = found.bins
    assert (first.mean_probability, first.road_share, first.num_pixels) == pytest.approx((0.2, 1 / 3, 30))
    assert (last.mean_probability, last.road_share, last.num_pixels) == pytest.approx((1, 1, 10))
    assert found.ece == pytest.approx(30 / 40 * (1 / 3 - 0.2))


def test_a_bin_averages_its_levels_by_pixels() -> None:
    # 120 and 135 are between 7/15 and 8/15 of 255: over- and underconfidence cancel within a bin. 136 is in the next.
    found = measure_reliability(counts_of(p120=(3, 0), p135=(0, 1), p136=(0, 1)))
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
    assert measure_reliability(counts_of()) is None


class NotGreenProgram(RoadProgram):
    """Predicts road for grey pixels: right on drawn scenes, wrong if colours are lost."""

    def __init__(self) -> None:
        super().__init__(UNet((4, 4)))

    def forward(self, image: Tensor) -> Tensor:
        red, green, blue = image.float().unbind(-1)
        return ((red - green).abs().lt(30) & (blue - red).abs().lt(40)).float()


class AllProgram(NotGreenProgram):
    """Predicts road everywhere, in any weather."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.ones(image.shape[:3])


@pytest.mark.parametrize(
    ("num", "limit", "chosen"), [(9, 3, [0, 4, 8]), (2, 16, [0, 1]), (1, 16, [0]), (5, 0, []), (100, 2, [0, 99])]
)
def test_frames_are_spread_over_the_split(num: int, limit: int, chosen: list[int]) -> None:
    assert spread(num, limit) == chosen


def test_every_corruption_is_scored_on_the_same_frames(camvid: Path, config: TrainConfig) -> None:
    frames = select(find_frames(camvid), "heldout")[:2]
    steady = measure_robustness(AllProgram(), frames, config=config, threshold=0.5)
    assert steady.num_frames == 2
    assert steady.road_iou == {kind: [steady.clean_road_iou] * 3 for kind in CORRUPTIONS}
    coloured = measure_robustness(NotGreenProgram(), frames, config=config, threshold=0.5)
    assert coloured.clean_road_iou > 0.8
    # thick fog hides the green of the meadows
    assert coloured.clean_road_iou > coloured.road_iou["fog"][0] > coloured.road_iou["fog"][2]
