from collections.abc import Callable

import numpy as np

from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID, Frame, read_image
from roadseg_train.evaluate.evaluate import Evaluation
from roadseg_train.evaluate.examples import (
    FALSE,
    FOUND,
    MISSED,
    choose_examples,
    draw_errors,
    draw_examples,
    draw_truth,
)
from roadseg_train.network.model import RoadProgram


def test_best_median_and_worst_are_chosen_once_each(evaluate: Callable[..., Evaluation]) -> None:
    evaluation = evaluate()
    ious = [0.5, 0.9, 0.1, 0.7, 0.3, 0.8, 0.6]
    images = [evaluation.images[0].model_copy(update={"road_iou": value}) for value in ious]
    seven = evaluation.model_copy(update={"images": images, "num_images": 7})
    assert [(label, ious[i]) for label, i in choose_examples(seven)] == [
        ("best", 0.9),
        ("best", 0.8),
        ("median", 0.7),
        ("median", 0.6),
        ("worst", 0.3),
        ("worst", 0.1),
    ]
    two = evaluation.model_copy(update={"images": images[:2], "num_images": 2})
    assert [i for _, i in choose_examples(two)] == [1, 0]


def test_error_colours() -> None:
    image_HWC = np.full((1, 5, 3), 100, dtype=np.uint8)
    target_HW = np.array([[ROAD, ROAD, NOT_ROAD, NOT_ROAD, VOID]], dtype=np.uint8)
    prob_HW = np.array([[200, 100, 200, 100, 200]], dtype=np.uint8)
    shown = draw_errors(image_HWC, target_HW, prob_HW, threshold=0.5)
    dim = np.array([50, 50, 50])
    half = [dim + np.array(c) // 2 for c in (FOUND, MISSED, FALSE)]
    np.testing.assert_array_equal(shown[0], [half[0], half[1], half[2], dim, dim])


def test_truth_colours() -> None:
    shown = draw_truth(np.full((1, 3, 3), 100, dtype=np.uint8), np.array([[ROAD, NOT_ROAD, VOID]], dtype=np.uint8))
    np.testing.assert_array_equal(shown[0], [np.array(FOUND) // 2 + 50, [50, 50, 50], [0, 0, 0]])


def test_every_panel_has_the_size_of_the_frame(
    program: RoadProgram, frames: list[Frame], evaluate: Callable[..., Evaluation]
) -> None:
    evaluation = evaluate()
    examples = draw_examples(program, frames, evaluation)
    assert [example.score.name for example in examples] == [
        evaluation.images[i].name for _, i in choose_examples(evaluation)
    ]
    by_name = {frame.name: frame for frame in frames}
    for example in examples:
        np.testing.assert_array_equal(example.image_HWC, read_image(by_name[example.score.name].image))
        for panel_HWC in (example.truth_HWC, example.prob_HWC, example.errors_HWC):
            assert panel_HWC.shape == example.image_HWC.shape
            assert panel_HWC.dtype == np.uint8
