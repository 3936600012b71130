"""Segmentation without a server: files in, files out, and the pipeline between; road probability is red / 255."""

import csv
import io
import json
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress

from roadseg_serve.errors import DamagedImageError, FileError, InputError, RoadsegError
from roadseg_serve.messages import AnswerOptions, Format, Frame, ModelName, Placement, Prediction, UInt8Array
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.offline.console import summarise, summary_file
from roadseg_serve.offline.inputs import Job, find, plan
from roadseg_serve.offline.segment import (
    MAX_BATCH_SIZE,
    Options,
    Outcome,
    Segmenter,
    atomic_file,
    run_batches,
    segment_bytes,
    segment_files,
)

WIDTH, HEIGHT = 96, 64  # the red model takes this size as it is


def picture(num_road_columns: int, *, red: int = 200, width: int = WIDTH, height: int = HEIGHT) -> UInt8Array:
    """image_HWC: that many columns on the left are red, the others blue."""
    image_HWC = np.zeros((height, width, 3), np.uint8)
    image_HWC[:, :num_road_columns] = (red, 0, 0)
    image_HWC[:, num_road_columns:] = (0, 0, 250)
    return image_HWC


def save(path: Path, image_HWC: UInt8Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_HWC).save(path)
    return path


@pytest.fixture(scope="module")
def segmenter(red_artefact: Path) -> Segmenter:
    return Segmenter(str(red_artefact), num_threads=1)


def planned(source: Path, out: Path, wanted: Format | None = None) -> list[Job]:
    return plan(find([str(source)], recursive=True, out=out), out=out, wanted=wanted)


def run(segmenter: Segmenter, jobs: Sequence[Job], **options: Any) -> dict[str, Outcome]:
    """Outcomes by the name of the input."""
    outcomes = list(segment_files(segmenter, jobs, Options(**options), Progress(disable=True)))
    assert len(outcomes) == len(jobs)
    return {outcome.source.name: outcome for outcome in outcomes}


def test_a_folder_of_pictures_becomes_a_folder_of_masks(segmenter: Segmenter, tmp_path: Path) -> None:
    columns = {f"{i % 3}/{i}.png": 5 * i for i in range(1, 15)}
    for name, num_columns in columns.items():
        save(tmp_path / "in" / name, picture(num_columns, width=WIDTH + 16 * (num_columns % 2)))
    outcomes = run(segmenter, planned(tmp_path / "in", tmp_path / "out"))
    for name, num_columns in columns.items():
        width = WIDTH + 16 * (num_columns % 2)
        expected_HW = np.zeros((HEIGHT, width), np.uint8)
        expected_HW[:, :num_columns] = 255
        mask = Image.open(tmp_path / "out" / name)
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), expected_HW)
        outcome = outcomes[Path(name).name]
        assert (outcome.state, outcome.width, outcome.height, outcome.num_images) == ("written", width, HEIGHT, 1)
        assert outcome.road_share == pytest.approx(num_columns / width)
        assert outcome.seconds > 0
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == set(columns)  # nothing half done is left


@pytest.mark.parametrize(
    ("wanted", "suffix", "mode"),
    [
        (Format.JPEG, ".jpg", "L"),
        (Format.PNG, ".png", "L"),
        (Format.PROBABILITY, ".png", "L"),
        (Format.OVERLAY, ".jpg", "RGB"),
    ],
)
def test_every_format(segmenter: Segmenter, tmp_path: Path, wanted: Format, suffix: str, mode: str) -> None:
    source = save(tmp_path / "in" / "a.png", picture(48))
    outcomes = run(segmenter, planned(tmp_path / "in", tmp_path / "out", wanted))
    answer = Image.open(tmp_path / "out" / f"a{suffix}")
    assert (answer.mode, answer.size) == (mode, (WIDTH, HEIGHT))
    left, right = answer.getpixel((10, 32)), answer.getpixel((80, 32))
    if wanted is Format.OVERLAY:
        # round((125 * (200, 0, 0) + 130 * (26, 200, 110)) / 255), and the blue as it was; JPEG is not exact.
        assert left == pytest.approx((111, 102, 56), abs=4)
        assert right == pytest.approx((0, 0, 250), abs=4)
    else:
        assert (left, right) == ((200 if wanted is Format.PROBABILITY else 255), 0)
    # The same as of a server, which calls the same functions.
    assert (tmp_path / "out" / f"a{suffix}").read_bytes() == segment_bytes(
        segmenter, source.read_bytes(), AnswerOptions(wanted)
    ).body
    assert outcomes["a.png"].road_share == 0.5


def test_json_has_the_figures(segmenter: Segmenter, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", picture(24))
    run(segmenter, planned(tmp_path / "in", tmp_path / "out", Format.JSON))
    assert json.loads((tmp_path / "out" / "a.json").read_text())["road_share"] == 0.25


def test_the_threshold_replaces_the_models_own(segmenter: Segmenter, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", picture(48, red=200))
    jobs = planned(tmp_path / "in", tmp_path / "out")
    # 200 / 255 is 0.784.
    assert run(segmenter, jobs, threshold=0.78)["a.png"].road_share == 0.5
    assert run(segmenter, jobs, threshold=0.79)["a.png"].road_share == 0.0


def test_failures_are_reported_and_the_rest_goes_on(segmenter: Segmenter, tmp_path: Path) -> None:
    save(tmp_path / "in" / "good.png", picture(48))
    whole_file = save(tmp_path / "in" / "z.png", picture(48)).read_bytes()
    (tmp_path / "in" / "cut.png").write_bytes(whole_file[:100])
    (tmp_path / "in" / "empty.png").touch()
    (tmp_path / "in" / "text.jpg").write_text("no picture")
    (tmp_path / "out" / "z.png").mkdir(parents=True)  # where a mask should go
    jobs = planned(tmp_path / "in", tmp_path / "out")
    gone = save(tmp_path / "gone.png", picture(1))
    jobs.append(Job(gone, is_video=False, format=Format.PNG, target=tmp_path / "out" / "gone.png"))
    gone.unlink()
    outcomes = run(segmenter, jobs)
    assert {name: outcome.state for name, outcome in outcomes.items()} == {
        "good.png": "written", "cut.png": "failed", "empty.png": "failed", "text.jpg": "failed", "gone.png": "failed",
        "z.png": "failed",
    }  # fmt: skip
    for name, says in {
        "cut.png": "cannot be decoded",
        "empty.png": "is empty",
        "text.jpg": "not a picture",
        "gone.png": "No such file",
        "z.png": "cannot be written",
    }.items():
        assert says in outcomes[name].fault
        # No talk of uploads: these files are on the user's own machine.
        assert not {"send", "upload", "field"} & set(outcomes[name].fault.lower().split())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.png", "z.png"}


def test_skip_existing_continues(segmenter: Segmenter, tmp_path: Path) -> None:
    save(tmp_path / "in" / "old.png", picture(48))
    save(tmp_path / "in" / "new.png", picture(48))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.png").write_bytes(b"earlier")
    jobs = planned(tmp_path / "in", tmp_path / "out")
    outcomes = run(segmenter, jobs, skip_existing=True)
    assert {name: outcome.state for name, outcome in outcomes.items()} == {"old.png": "skipped", "new.png": "written"}
    assert (tmp_path / "out" / "old.png").read_bytes() == b"earlier"
    assert run(segmenter, jobs)["old.png"].state == "written"
    assert (tmp_path / "out" / "old.png").read_bytes() != b"earlier"


def test_a_file_is_complete_or_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a"
    with atomic_file(path) as part:
        part.write_bytes(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with pytest.raises(KeyboardInterrupt):
        stop_half_way(path)
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def stop_half_way(path: Path) -> None:
    with atomic_file(path) as part:
        part.write_bytes(b"sec")
        raise KeyboardInterrupt


FRAME = Frame(np.zeros((16, 16, 3), np.uint8), Placement(16, 16, 16, 16), SizeRule.model_construct())


def predict_nothing(frames: Sequence[Frame]) -> list[Prediction]:
    return [Prediction(frame.input_HWC[..., 0], frame.placement, 0.5, ModelName("m", "1")) for frame in frames]


def test_batches_keep_the_order_and_take_no_more_than_they_must() -> None:
    taken = 0

    def items() -> Any:
        nonlocal taken
        for item in range(1000):
            taken += 1
            yield item

    batches = []

    def predict(frames: Sequence[Frame]) -> list[Prediction]:
        batches.append(len(frames))
        return predict_nothing(frames)

    results = run_batches(items(), lambda _: FRAME, predict, lambda item, _frame, _prediction: 2 * item, num_jobs=3)
    with closing(results):
        for i, (item, result) in enumerate(results):
            assert (item, result) == (i, 2 * i)
            # Being prepared, twice a batch before the engine, being finished.
            assert taken - i <= (MAX_BATCH_SIZE + 3) + 2 * MAX_BATCH_SIZE + (2 * MAX_BATCH_SIZE + 1)
    assert taken == 1000
    assert max(batches) <= MAX_BATCH_SIZE
    assert sum(batches) == 1000


def test_batches_overlap() -> None:
    # Each stage of the first item waits until another stage works on a later one: in a plain loop they would for ever.
    prepared_second, predicted_later = threading.Event(), threading.Event()

    def prepare(item: int) -> Frame:
        if item == MAX_BATCH_SIZE + 1:
            prepared_second.set()
        return FRAME

    calls = 0

    def predict(frames: Sequence[Frame]) -> list[Prediction]:
        nonlocal calls
        calls += 1
        if calls == 1:
            assert prepared_second.wait(60)
        else:
            predicted_later.set()
        return predict_nothing(frames)

    def finish(item: int, _frame: Frame, _prediction: Prediction) -> int:
        if item == 0:
            assert predicted_later.wait(60)
        return item

    results = run_batches(range(12), prepare, predict, finish, num_jobs=2)
    assert [result for _, result in results] == list(range(12))


def test_batches_report_user_errors_and_raise_bugs() -> None:
    def prepare(item: int) -> Frame:
        if item == 1:
            raise DamagedImageError("damaged")
        return FRAME

    def finish(item: int, _frame: Frame, _prediction: Prediction) -> int:
        if item == 2:
            raise FileError("full")
        if item == 5:
            raise ZeroDivisionError
        return item

    results = dict(run_batches(range(5), prepare, predict_nothing, finish, num_jobs=2))
    faults = {item: str(result) for item, result in results.items() if isinstance(result, RoadsegError)}
    assert faults == {1: "damaged", 2: "full"}
    assert {item: result for item, result in results.items() if item not in faults} == {0: 0, 3: 3, 4: 4}
    with pytest.raises(ZeroDivisionError):
        list(run_batches(range(9), prepare, predict_nothing, finish, num_jobs=2))


def test_the_closing_line_weighs_by_images() -> None:
    outcomes = [
        Outcome(Path("a"), Path("o/a"), 10, 10, 1, 0.2, 1.0),
        Outcome(Path("v"), Path("o/v"), 10, 10, 3, 0.6, 1.0, fault="cut"),
        Outcome(Path("b"), Path("o/b")),
        Outcome(Path("c"), Path("o/c"), fault="bad"),
    ]
    # (0.2 + 3 * 0.6) / 4 is 0.5.
    assert summarise(outcomes, seconds=8, out=Path("o")) == (
        "4 images of 2 files in 0:00:08 (0.5 images/s), mean road share 0.500, 1 skipped, 2 failed; written to o"
    )


def test_the_summary_file_grows_with_each_outcome(tmp_path: Path) -> None:
    path = tmp_path / "new" / "summary.csv"
    with summary_file(path) as write:
        write(Outcome(Path("a,b.png"), Path("o/a,b.png"), 96, 64, 1, 0.25, 0.1234))
        assert len(path.read_text().splitlines()) == 2
        write(Outcome(Path("c.png"), Path("o/c.png"), fault="bad"))
        write(Outcome(Path("d.png"), Path("o/d.png")))
    assert list(csv.reader(io.StringIO(path.read_text()))) == [
        ["path", "mask", "state", "images", "width", "height", "road_share", "seconds", "fault"],
        ["a,b.png", "o/a,b.png", "written", "1", "96", "64", "0.250000", "0.123", ""],
        ["c.png", "", "failed", "0", "", "", "", "", "bad"],
        ["d.png", "o/d.png", "skipped", "0", "", "", "", "", ""],
    ]


def test_a_summary_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--summary"), summary_file(tmp_path):
        pass
