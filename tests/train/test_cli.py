"""The command line as a person runs it, on a drawn dataset and in one process; Ray has its own test."""

import json
import shutil
import subprocess
import sys
from pathlib import Path


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

    done = roadseg_train("evaluate", "--run", run, "--robustness-frames", "1")
    assert done.returncode == 0, done.stderr
    metrics = run / "evaluation" / "camvid-heldout" / "metrics.json"
    assert f"{json.loads(metrics.read_text())['overall']['road_iou']:.4f}" in done.stdout
    assert str(metrics.with_name("report.html")) in done.stdout
    assert "<!doctype html>" in metrics.with_name("report.html").read_text()

    publish = ("publish", "--run", run, "--store", store, "--name", "road", "--version", "1", "--evaluation", metrics)
    done = roadseg_train(*publish)
    assert done.returncode == 0, done.stderr
    assert f"roadseg-serve run --model {store / 'road' / '1'}" in done.stdout
    again = roadseg_train(*publish)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert "never re-used" in again.stderr


def test_evaluate_elsewhere_once_the_runs_own_data_is_gone(tmp_path: Path, camvid: Path) -> None:
    data, run = Path(shutil.copytree(camvid, tmp_path / "CamVid")), tmp_path / "run"
    fit = ("fit", "--data", data, "--run", run, "--preset", "tiny", "--steps", "1", "--workers", "0")
    assert roadseg_train(*fit).returncode == 0
    elsewhere = data.rename(tmp_path / "elsewhere")
    (elsewhere / "testing" / "image_2").mkdir(parents=True)
    shutil.copy(elsewhere / "val" / "0016E5_00000.png", elsewhere / "testing" / "image_2" / "uu_000001.png")

    done = roadseg_train("evaluate", "--run", run, "--data", elsewhere, "--split", "train", "--robustness-frames", "0")
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((run / "evaluation" / "camvid-train" / "metrics.json").read_text())
    assert evaluation["seen_in_training"]  # the same frames, though they lie elsewhere now
    assert "fitted on some of these pictures" in done.stdout

    out = tmp_path / "submission"
    words = ("evaluate", "--run", run, "--data", elsewhere, "--kitti-submission", out, "--robustness-frames", "0")
    done = roadseg_train(*words)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.iterdir()] == ["uu_road_000001.png"]
    assert "warning: the server wants all 290 pictures" in done.stderr

    done = roadseg_train("evaluate", "--run", run)
    assert done.returncode == 1
    assert (
        done.stderr == f"error: {data} is no dataset folder; expected train/ beside trainannot/ (CamVid, SegNet form) "
        "or training/image_2/ beside training/gt_image_2/ (KITTI Road)\n"
    )


def test_faults_of_the_data_are_told_before_anything_starts(tmp_path: Path, camvid: Path) -> None:
    data = Path(shutil.copytree(camvid, tmp_path / "CamVid"))
    for name in ("0001TP_00003", "0006R0_00009"):  # one to fit on, one held out
        (data / "train" / f"{name}.png").write_bytes(b"")
    done = roadseg_train("fit", "--data", data, "--run", tmp_path / "run", "--workers", "0")
    assert done.returncode == 1
    assert "error: the data has 2 faults; nothing was started\n" in done.stderr
    assert done.stderr.index("0001TP_00003.png") < done.stderr.index("0006R0_00009.png")
    assert not (tmp_path / "run").exists()


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
