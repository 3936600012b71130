"""The page is complete, self-contained and agrees with metrics.json, also in unusual cases."""

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID, Frame, read_image
from roadseg_train.evaluate.bootstrap import Interval, Intervals
from roadseg_train.evaluate.evaluate import Evaluation
from roadseg_train.evaluate.report import (
    FALSE,
    FOUND,
    MISSED,
    choose_examples,
    draw_errors,
    draw_examples,
    draw_truth,
    encode_jpeg,
    render_report,
    shade,
)
from roadseg_train.evaluate.submission import SubmissionImages
from roadseg_train.network.model import RoadProgram

VOID_TAGS = {"meta", "img", "br"}
Evaluate = Callable[..., Evaluation]


class Page(HTMLParser):
    """Text and links of a page; fails if a tag is left open or closed twice."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_TAGS:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe"}
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        self.ids += [value or "" for name, value in attrs if name == "id" and tag == "svg"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"  # separates the cells of a table


def read(html: str) -> Page:
    page = Page(html)
    page.text = " ".join(page.text.split())
    return page


def test_the_page_is_complete_and_self_contained(program: RoadProgram, frames: list[Frame], evaluate: Evaluate) -> None:
    evaluation = evaluate(num_robustness_frames=1)
    html = render_report(evaluation, draw_examples(program, frames, evaluation), None)
    page = read(html)
    images = [link for link in page.links if link.startswith("data:image/jpeg;base64,")]
    assert len(images) == 4 * 4
    assert [link for link in page.links if link not in images and not link.startswith("#")] == []
    assert re.findall(r"url\((?!#)|@import|@font-face", html) == []
    assert len(page.ids) == len(set(page.ids)) == 3  # the three charts
    for value in (evaluation.overall.road_iou, evaluation.overall.f1, evaluation.overall.max_f):
        assert f"{value:.3f}" in page.text
    for drive, scores in evaluation.by_drive.items():
        assert f"{drive} 2 {scores.road_iou:.3f}" in page.text
    assert evaluation.reliability is not None
    assert f"{evaluation.reliability.ece:.4f}" in page.text
    assert "trained on some of these images" not in page.text


def test_intervals_are_shown_with_their_blocks(evaluate: Evaluate) -> None:
    interval = Interval(low=0.123, high=0.456)
    intervals = Intervals(
        num_blocks=7, block_length_frames=10, num_resamples=1000, seed=0, road_iou=interval, f1=interval, max_f=interval
    )
    evaluation = evaluate()
    detail = evaluation.overall_detail.model_copy(update={"intervals": intervals})
    page = read(render_report(evaluation.model_copy(update={"overall_detail": detail}), [], None))
    assert page.text.count("0.123 to 0.456") == 4  # three tiles and the row for all
    assert "1,000 resamples of 7 blocks" in page.text
    assert "With so few blocks" in page.text


def test_a_banner_warns_of_images_seen_in_training(evaluate: Evaluate) -> None:
    assert "trained on some of these images" in read(render_report(evaluate(fitted_on="train"), [], None)).text


def test_views_are_described(evaluate: Evaluate) -> None:
    alone = read(render_report(evaluate(), [], None)).text
    assert "Run runs/first , step 6 of 6 Trained on" in alone
    assert "at scale" not in alone
    several = evaluate().model_copy(update={"mirror": True, "scales": (0.5, 1.5)})
    page = read(render_report(several, [], None)).text
    assert f"step 6, {several.views.text()} ·" in page
    assert f"Views mean of 4 predictions per image, {several.views.text()}" in page


def test_the_split_is_described(evaluate: Evaluate) -> None:
    page = read(render_report(evaluate(split="drive:0006R0", fitted_on="without:0006R0"), [], None))
    assert "drive:0006R0 : that drive" in page.text


@pytest.mark.parametrize("label", [0, 11])
def test_a_split_without_road_or_without_any_label(
    tmp_path: Path, program: RoadProgram, frames: list[Frame], evaluate: Evaluate, label: int
) -> None:
    Image.fromarray(np.full((48, 64), label, dtype=np.uint8)).save(tmp_path / "mask.png")
    bare = [type(f)(**{**vars(f), "mask": tmp_path / "mask.png"}) for f in frames]
    evaluation = evaluate(frames=bare, num_robustness_frames=1)
    page = read(render_report(evaluation, draw_examples(program, bare, evaluation), None))
    assert "no road in the masks" in page.text
    assert ("no pixel of this split is labelled" in page.text) == (label == 11)


def test_one_image(program: RoadProgram, frames: list[Frame], evaluate: Evaluate) -> None:
    evaluation = evaluate(frames=frames[:1], num_robustness_frames=16)
    page = read(render_report(evaluation, draw_examples(program, frames[:1], evaluation), None))
    assert "1 image ·" in page.text
    assert "too few images for an interval" in page.text


def test_names_are_escaped(evaluate: Evaluate) -> None:
    evaluation = evaluate().model_copy(update={"run": "<b>runs/&first", "data": ["<script>"]})
    assert "<b>runs/&first" in read(render_report(evaluation, [], None)).text


def test_the_submission_section_lists_what_is_missing(evaluate: Evaluate) -> None:
    images = SubmissionImages({"um_road_000000.png": Path("x")}, ["missing are 95 of 96 um"])
    page = read(render_report(evaluate(), [], images))
    assert "transform2BEV.py" in page.text
    assert "Not complete: missing are 95 of 96 um." in page.text


def test_images_shrink_to_a_panel_and_keep_their_shape() -> None:
    uri = encode_jpeg(np.full((375, 1242, 3), 99, dtype=np.uint8))
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        assert image.size == (560, 169)
        assert np.asarray(image).mean() == pytest.approx(99, abs=1)


@pytest.mark.parametrize(("drop", "strength"), [(-0.1, "0%"), (0.0, "0%"), (0.25, "50%"), (0.9, "100%")])
def test_shade(drop: float, strength: str) -> None:
    assert shade(drop) == strength


def test_best_median_and_worst_are_chosen_once_each(evaluate: Evaluate) -> None:
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


def test_every_panel_has_the_size_of_the_frame(program: RoadProgram, frames: list[Frame], evaluate: Evaluate) -> None:
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
