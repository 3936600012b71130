import re
from collections.abc import Callable

from roadseg_train.evaluate.charts import draw_image_ious, draw_precision_recall, draw_reliability
from roadseg_train.evaluate.evaluate import Bin, Evaluation, Reliability

Evaluate = Callable[..., Evaluation]


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_page_chooses_the_colour_of_text_and_rules(evaluate: Evaluate) -> None:
    svg = draw_image_ious(evaluate())
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "var(--rule)" in svg
    assert not re.search("#0[0-9]0[0-9]0[0-9]", svg)  # no placeholder is left


def test_the_same_scores_give_the_same_chart(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    assert draw_image_ious(evaluation) == draw_image_ious(evaluation)


def test_both_thresholds_are_labelled(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    kitti = evaluation.overall_detail.kitti
    assert kitti is not None
    words = texts(draw_precision_recall(evaluation))
    assert f"best F1, threshold {kitti.threshold:.3f}" in words
    assert "threshold 0.5" in words
    # a threshold without detections has no precision
    road = [sum(evaluation.road_at_level), *[0] * 255]
    nothing = evaluation.model_copy(update={"road_at_level": road})
    assert "threshold 0.5" not in texts(draw_precision_recall(nothing))


def test_drives_have_colours_of_their_own_if_there_are_few(evaluate: Evaluate) -> None:
    evaluation = evaluate()
    assert {"0001TP", "0006R0"} <= set(texts(draw_image_ious(evaluation)))
    many = {f"drive{i}": evaluation.overall for i in range(7)}
    images = [evaluation.images[0].model_copy(update={"drive": drive}) for drive in many]
    crowded = evaluation.model_copy(update={"by_drive": many, "images": images, "num_images": 7})
    assert "7 drives" in texts(draw_image_ious(crowded))


def test_reliability_draws_a_point_for_each_bin() -> None:
    bins = [Bin(mean_probability=x, road_share=y, num_pixels=1) for x, y in ((0.1, 0.2), (0.5, 0.3), (0.9, 0.8))]
    svg, fewer = (draw_reliability(Reliability(ece=0.1, bins=shown)) for shown in (bins, bins[:1]))
    assert {"perfect", "this run"} <= set(texts(svg))
    assert svg.count("<use") - fewer.count("<use") == 2  # a marker each; the ticks of both charts are the same
