import re
from collections.abc import Callable

import numpy as np
import pytest

from roadseg_train.evaluate.calibration import Pixels, calibrate
from roadseg_train.evaluate.charts import draw_image_ious, draw_leak, draw_precision_recall, draw_reliability
from roadseg_train.evaluate.evaluate import Evaluation
from roadseg_train.evaluate.leak import Leak

Evaluate = Callable[..., Evaluation]


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_page_decides_the_colour_of_text_and_rules(evaluate: Evaluate) -> None:
    svg = draw_image_ious(evaluate())
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "var(--rule)" in svg
    assert not re.search("#0[0-9]0[0-9]0[0-9]", svg)  # no stand-in is left


def test_the_same_figures_make_the_same_chart(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    assert draw_image_ious(evaluation) == draw_image_ious(evaluation)


def test_both_points_are_named(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    kitti = evaluation.overall_detail.kitti
    assert kitti is not None
    words = texts(draw_precision_recall(evaluation))
    assert f"best F1, at {kitti.threshold:.3f}" in words
    assert "threshold 0.5" in words
    # a threshold at which nothing is found has no precision
    road = [sum(evaluation.road_at_level), *[0] * 255]
    nothing = evaluation.model_copy(update={"road_at_level": road})
    assert "threshold 0.5" not in texts(draw_precision_recall(nothing))


def test_drives_are_told_apart_while_there_are_colours(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    assert {"0001TP", "0006R0"} <= set(texts(draw_image_ious(evaluation)))
    many = {f"drive{i}": evaluation.overall for i in range(7)}
    images = [evaluation.images[0].model_copy(update={"drive": drive}) for drive in many]
    crowded = evaluation.model_copy(update={"by_drive": many, "images": images, "num_images": 7})
    assert "7 drives" in texts(draw_image_ious(crowded))


def test_bars_carry_their_figures() -> None:
    alone = Leak(copied_random=0.891, copied_blocks=0.801, network_random=None)
    words = texts(draw_leak(alone, network_blocks=0.93))
    assert {"0.891", "0.801"} <= set(words)
    assert "0.930" not in words
    both = alone.model_copy(update={"network_random": 0.97})
    assert {"0.891", "0.801", "0.970", "0.930"} <= set(texts(draw_leak(both, network_blocks=0.93)))


def test_reliability_names_the_temperature() -> None:
    logit = np.linspace(-6, 6, 1001)
    pixels = Pixels(logit, np.random.default_rng(0).uniform(size=1001) < 1 / (1 + np.exp(-logit / 2)))
    calibration = calibrate([(pixels, pixels)], [(pixels, pixels)])
    assert calibration is not None
    assert calibration.temperature == pytest.approx(2, rel=0.2)
    assert f"divided by {calibration.temperature:.2f}" in texts(draw_reliability(calibration))
