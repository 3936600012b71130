"""The command line as a person runs it, on a drawn dataset and in one process; Ray has its own test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from roadseg_train.cli import parse_workers


def roadseg_train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from roadseg_train.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_fit_evaluate_publish(tmp_path: Path, camvid: Path) -> None:
    run, store = tmp_path / "run", tmp_path / "models"
    fit = ("fit", "--data", camvid, "--run", run, "--preset", "tiny", "--steps", "2", "--workers", "0")
    done = roadseg_train(*fit)
    assert done.returncode == 0, done.stderr
    assert "16 frames of split 'fit', scored on 4 held-out ones" in done.stdout
    assert "2/2" in done.stderr  # the progress bar
    again = roadseg_train(*fit)  # nothing is left to do
    assert again.returncode == 0, again.stderr

    done = roadseg_train("evaluate", "--run", run)
    assert done.returncode == 0, done.stderr
    metrics = run / "evaluation" / "camvid-heldout" / "metrics.json"
    assert f"{json.loads(metrics.read_text())['overall']['road_iou']:.4f}" in done.stdout
    assert metrics.with_name("cases.png").stat().st_size > 0

    publish = ("publish", "--run", run, "--store", store, "--name", "road", "--version", "1", "--evaluation", metrics)
    done = roadseg_train(*publish)
    assert done.returncode == 0, done.stderr
    assert f"roadseg-serve run --model {store / 'road' / '1'}" in done.stdout
    again = roadseg_train(*publish)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert "never re-used" in again.stderr


def test_faults_are_one_line(tmp_path: Path) -> None:
    done = roadseg_train("fit", "--data", tmp_path, "--run", tmp_path / "run", "--workers", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_preset_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    done = roadseg_train("fit", "--data", tmp_path, "--run", tmp_path / "run", "--preset", "huge")
    assert done.returncode == 2
    assert "tiny, small" in done.stderr


@pytest.mark.parametrize(("text", "meaning"), [("0", 0), ("2", 2), ("1:4", (1, 4)), ("3:3", (3, 3))])
def test_workers_are_a_number_or_a_range(text: str, meaning: int | tuple[int, int]) -> None:
    assert parse_workers(text) == meaning


@pytest.mark.parametrize("text", ["-1", "0:2", "3:2", "1:2:3", "two", "", "1:"])
def test_other_numbers_of_workers_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither a number nor MIN:MAX"):
        parse_workers(text)
