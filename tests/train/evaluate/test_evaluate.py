import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import Frame, find_frames
from roadseg_train.data.split import select
from roadseg_train.errors import RunError
from roadseg_train.evaluate.evaluate import Evaluation, read_evaluation, read_leaky_iou
from roadseg_train.fit.run import Member
from roadseg_train.metrics import Histogram, confusion, iou
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.network.views import Views
from roadseg_train.storage.path import storage_path

Evaluate = Callable[..., Evaluation]


def test_scores_by_drive_and_overlap_with_training(evaluate: Evaluate) -> None:
    honest = evaluate(fitted_on="fit")
    assert (honest.num_images, set(honest.by_drive), honest.dataset) == (4, {"0001TP", "0006R0"}, "CamVid")
    assert not honest.seen_in_training
    # each drive has two pictures: the mean over all is the mean of the two drives' means
    means = [scores.mean_image_iou for scores in honest.by_drive.values()]
    assert honest.overall.mean_image_iou == pytest.approx(sum(means) / 2)
    assert evaluate(fitted_on="train").seen_in_training


def test_overlap_is_told_by_what_a_frame_is_and_not_by_where_it_lies(
    tmp_path: Path, camvid: Path, evaluate: Evaluate
) -> None:
    (tmp_path / "elsewhere").symlink_to(camvid)
    moved = select(find_frames(tmp_path / "elsewhere"), "heldout")
    assert evaluate(fitted_on="train", frames=moved).seen_in_training
    assert not evaluate(fitted_on="fit", frames=moved).seen_in_training


def test_the_counts_carry_the_pooled_score(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    counts = confusion(Histogram(np.array(evaluation.road_at_level), np.array(evaluation.not_road_at_level)))
    assert iou(counts)[128] == evaluation.overall.road_iou
    assert evaluation.overall_detail.kitti is not None
    assert evaluation.overall_detail.kitti.max_f == evaluation.overall.max_f


def test_details_of_all_and_of_each_drive(evaluate: Evaluate) -> None:
    evaluation = evaluate(split="train", fitted_on="val")
    assert evaluation.overall_detail.num_images == 20
    assert {drive: detail.num_images for drive, detail in evaluation.detail_by_drive.items()} == {
        "0001TP": 10,
        "0006R0": 10,
    }
    assert evaluation.overall_detail.intervals is None  # two blocks are too few
    assert evaluation.calibration is not None  # and enough for one to fit on and one to show
    assert (evaluation.calibration.num_frames_fitted, evaluation.calibration.num_frames_shown) == (10, 10)


def test_one_picture_is_enough(evaluate: Evaluate, frames: list[Frame]) -> None:
    evaluation = evaluate(frames=frames[:1])
    assert evaluation.num_images == 1
    assert evaluation.calibration is None
    assert evaluation.overall.mean_image_iou == evaluation.overall.road_iou


def test_robustness_is_measured_on_as_many_frames_as_asked_for(evaluate: Evaluate) -> None:
    assert evaluate().robustness is None
    robustness = evaluate(num_robustness_frames=1).robustness
    assert robustness is not None
    assert robustness.num_frames == 1


def test_it_is_read_back_as_written(tmp_path: Path, evaluate: Evaluate) -> None:
    evaluation = evaluate(num_robustness_frames=1)
    path = tmp_path / "metrics.json"
    path.write_text(evaluation.model_dump_json())
    assert read_evaluation(storage_path(path)) == evaluation
    with pytest.raises(RunError, match="make it with roadseg-train evaluate"):
        read_evaluation(storage_path(tmp_path / "other.json"))
    path.write_text("{}")
    with pytest.raises(RunError, match="evaluate again"):
        read_evaluation(storage_path(path))


def test_every_network_is_told(tmp_path: Path, evaluate: Evaluate, config: TrainConfig) -> None:
    members = [Member(run=f"runs/{seed}", config=config.model_copy(update={"seed": seed}), step=6) for seed in (3, 4)]
    evaluation = evaluate(members=members)
    assert (evaluation.run, evaluation.config.seed, evaluation.others) == ("runs/3", 3, members[1:])
    assert evaluation.members == members
    # From before there could be several, it was one.
    older = evaluate().model_dump(mode="json", exclude={"others", "mirror", "scales"})
    (tmp_path / "metrics.json").write_text(json.dumps(older))
    read = read_evaluation(storage_path(tmp_path / "metrics.json"))
    assert (len(read.members), read.views) == (1, Views())


def test_a_leaky_run_is_compared_with_the_same_recipe_only(
    tmp_path: Path, evaluate: Evaluate, config: TrainConfig
) -> None:
    path = tmp_path / "metrics.json"
    leaky = evaluate(split="random-heldout", fitted_on="random-fit")
    path.write_text(leaky.model_dump_json())

    def read(num_networks: int = 1, views: Views | None = None, split: str = "heldout", **changes: int) -> float:
        member = Member(run="runs/other", config=config.model_copy(update=changes), step=6)
        return read_leaky_iou(storage_path(path), members=[member] * num_networks, views=views or Views(), split=split)

    assert read(seed=7) == leaky.overall.road_iou
    with pytest.raises(RunError, match="not of the same recipe"):
        read(num_steps=7)
    with pytest.raises(RunError, match="not of the same recipe"):
        read(num_networks=2)
    with pytest.raises(RunError, match="not of the same recipe"):
        read(views=Views(mirror=True))
    with pytest.raises(RunError, match="evaluate this on 'heldout'"):
        read(split="val")
    path.write_text(evaluate().model_dump_json())
    with pytest.raises(RunError, match="fitted on 'random-fit'"):
        read()


def test_the_program_decides_the_score(evaluate: Evaluate, program: RoadProgram) -> None:
    # With all its weights at zero the head's bias alone decides: everything is road.
    (network,) = program.networks
    assert isinstance(network, UNet)
    network.head.weight.data.zero_()
    assert network.head.bias is not None
    network.head.bias.data.fill_(9.0)
    evaluation = evaluate()
    road, labelled = sum(evaluation.road_at_level), sum(evaluation.road_at_level) + sum(evaluation.not_road_at_level)
    assert evaluation.overall.road_iou == pytest.approx(road / labelled)
