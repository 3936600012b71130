from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from roadseg_train.data.dataset import Frame, find_frames
from roadseg_train.data.split import select
from roadseg_train.errors import RunError
from roadseg_train.evaluate.evaluate import Evaluation, read_evaluation
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
