from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg_train.config import TrainConfig
from roadseg_train.dataset import NOT_ROAD, ROAD, VOID, Frame, find_frames
from roadseg_train.errors import RunError
from roadseg_train.evaluate import (
    FALSE,
    FOUND,
    MISSED,
    Evaluation,
    choose_cases,
    draw_cases,
    evaluate_frames,
    read_evaluation,
    show_errors,
)
from roadseg_train.model import RoadProgram, UNet
from roadseg_train.split import select
from roadseg_train.storage import at


def evaluated(camvid: Path, config: TrainConfig, fit_split: str) -> tuple[RoadProgram, list[Frame], Evaluation]:
    frames = find_frames(camvid)
    heldout, program = select(frames, "heldout"), RoadProgram(UNet(config.widths)).eval()
    evaluation = evaluate_frames(
        program,
        heldout,
        config=config,
        step=6,
        fitted_on=fit_split,
        fit_frames=select(frames, fit_split),
        split="heldout",
        threshold=0.5,
    )
    return program, heldout, evaluation


def test_scores_by_drive_and_overlap_with_training(camvid: Path, config: TrainConfig) -> None:
    _, _, honest = evaluated(camvid, config, "fit")
    assert (honest.num_images, set(honest.by_drive), honest.dataset) == (4, {"0001TP", "0006R0"}, "CamVid")
    assert not honest.seen_in_training
    # each drive has two pictures: the mean over all is the mean of the two drives' means
    means = [scores.mean_image_iou for scores in honest.by_drive.values()]
    assert honest.overall.mean_image_iou == pytest.approx(sum(means) / 2)
    _, _, leaked = evaluated(camvid, config, "train")
    assert leaked.seen_in_training


def test_it_is_read_back_as_written(tmp_path: Path, camvid: Path, config: TrainConfig) -> None:
    _, _, evaluation = evaluated(camvid, config, "fit")
    path = tmp_path / "metrics.json"
    path.write_text(evaluation.model_dump_json())
    assert read_evaluation(at(path)) == evaluation
    with pytest.raises(RunError, match="make it with roadseg-train evaluate"):
        read_evaluation(at(tmp_path / "other.json"))


def test_best_median_and_worst_are_shown_once_each(camvid: Path, config: TrainConfig) -> None:
    _, _, evaluation = evaluated(camvid, config, "fit")
    ious = [0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.6]
    images = [evaluation.images[0].model_copy(update={"road_iou": value}) for value in ious]
    seven = evaluation.model_copy(update={"images": images, "num_images": 7})
    assert [(label, ious[i]) for label, i in choose_cases(seven)] == [
        ("best", 0.9),
        ("best", 0.8),
        ("median", 0.7),
        ("median", 0.6),
        ("worst", 0.3),
        ("worst", 0.1),
    ]
    two = evaluation.model_copy(update={"images": images[:2], "num_images": 2})
    assert [i for _, i in choose_cases(two)] == [1, 0]


def test_error_colours_by_hand() -> None:
    image_HWC = np.full((1, 5, 3), 100, dtype=np.uint8)
    target_HW = np.array([[ROAD, ROAD, NOT_ROAD, NOT_ROAD, VOID]], dtype=np.uint8)
    prob_HW = np.array([[200, 100, 200, 100, 200]], dtype=np.uint8)
    shown = show_errors(image_HWC, target_HW, prob_HW, threshold=0.5)
    dim = np.array([50, 50, 50])
    half = [dim + np.array(c) // 2 for c in (FOUND, MISSED, FALSE)]
    np.testing.assert_array_equal(shown[0], [half[0], half[1], half[2], dim, dim])


def test_the_picture_of_cases_is_drawn(tmp_path: Path, camvid: Path, config: TrainConfig) -> None:
    program, frames, evaluation = evaluated(camvid, config, "fit")
    draw_cases(program, frames, evaluation, tmp_path / "cases.png")
    with Image.open(tmp_path / "cases.png") as drawn:
        assert drawn.width > drawn.height > 400  # four rows of four pictures
