import sys

import pytest

from roadseg_train.fit.progress import Clock, Progress, ProgressDisplay, Summary, Totals, duration


def progress(step: int, *, heldout_iou: float | None = None) -> Progress:
    return Progress(
        step=step, num_steps=9, loss=0.25, heldout_iou=heldout_iou, images_per_s=12, wait_share=0.04, left_s=200
    )


def test_a_log_gets_the_first_line_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    display = ProgressDisplay()
    for step in (1, 2, 3):
        display.show(progress(step))
    display.show(progress(9, heldout_iou=0.91))
    assert capsys.readouterr().err.splitlines() == [
        "step 1/9: loss 0.2500, 12.0 images/s (4% waiting for data), 0:03:20 left",
        "step 9/9: loss 0.2500, held-out IoU 0.9100, 12.0 images/s (4% waiting for data), 0:03:20 left",
    ]


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    display = ProgressDisplay()
    for step in (8, 9):  # a run that was resumed after step 7
        display.show(progress(step))
    display.close()
    last = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    assert last.startswith("loss 0.2500, 12.0 images/s")
    assert last.endswith("| 9/9")


def test_the_clock_adds_to_the_totals_and_knows_the_recent_speed() -> None:
    totals = Totals(wait_s=100, compute_s=300)  # of an earlier start
    clock = Clock(totals)
    clock.add_step(1, 3)
    clock.add_step(2, 4)
    assert (totals.wait_s, totals.compute_s, totals.steps_s) == (103, 307, 410)
    assert clock.step_s == 5
    assert clock.wait_share == pytest.approx(3 / 10)


def test_the_best_scores_are_kept() -> None:
    totals = Totals()
    for step, iou in ((1, 0.5), (2, 0.9), (3, 0.7)):
        totals.note_scores(step, {"road_iou": iou, "f1": 0.8, "max_f": 0.9})
    again = Totals.model_validate(totals.model_dump())
    assert (again.best_step, again.best_heldout["road_iou"], again.last_heldout["road_iou"]) == (2, 0.9, 0.7)


def test_durations_are_read_at_a_glance() -> None:
    assert duration(3 * 3600 + 25 * 60 + 4.6) == "3:25:05"


def test_a_summary_without_scores_leaves_them_out() -> None:
    summary = Summary.model_validate_json(
        """{"stopped": true, "step": 3, "num_steps": 9, "num_images": 24, "duration_s": 61, "images_per_s": 0.4,
        "data_wait_share": 0.04, "loss": null, "best_step": null, "best_heldout": {}, "last_heldout": {},
        "num_workers": 2, "device": "cpu in float32"}"""
    )
    lines = summary.text(run="runs/first").splitlines()
    assert lines[0] == "stopped at step 3 of 9, 24 images in 0:01:01"
    assert lines[1] == "  speed      0.4 images/s, 4.0% of the time waiting for data; workers: 2, cpu in float32"
    assert len(lines) == 3
