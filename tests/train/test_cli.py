"""The command line as a person runs it, on a drawn dataset and in one process; Ray has its own test."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import typer

from roadseg_train.cli import parse_workers
from roadseg_train.storage.path import StoragePath, storage_path
from tests.seaweed import BUCKET, Seaweed


def roadseg_train(*arguments: str | Path | StoragePath, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "roadseg_train", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | env)


@pytest.fixture
def data(place: StoragePath, camvid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoragePath:
    """The drawn dataset in each kind of place."""
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path / "cache"))
    place.upload(camvid, "data")
    return place / "data"


def test_fit_evaluate_publish(place: StoragePath, data: StoragePath) -> None:
    run, store = place / "run", place / "models"
    fit = ("fit", "--data", data, "--run", run, "--preset", "tiny", "--steps", "2", "--workers", "0")
    done = roadseg_train(*fit)
    assert done.returncode == 0, done.stderr
    assert "16 frames of split 'fit', scored on 4 held-out ones" in done.stdout
    assert "2/2" in done.stderr  # the progress bar
    again = roadseg_train(*fit, "--checkpoint-every", "1")  # nothing is left to do, however often it is saved
    assert again.returncode == 0, again.stderr

    done = roadseg_train("evaluate", "--run", run, "--robustness-frames", "1")
    assert done.returncode == 0, done.stderr
    evaluation = run / "evaluation" / "camvid-heldout"
    metrics = evaluation / "metrics.json"
    assert f"{json.loads(metrics.read_text())['overall']['road_iou']:.4f}" in done.stdout
    assert str(evaluation / "report.html") in done.stdout
    assert "<!doctype html>" in (evaluation / "report.html").read_text()

    words = ("publish", "--run", run, "--store", store, "--name", "road", "--version", "1", "--evaluation", metrics)
    publish = (*words, "--int8")
    done = roadseg_train(*publish)
    assert done.returncode == 0, done.stderr
    assert f"roadseg-serve run --model {store / 'road' / '1'}" in done.stdout
    manifest = json.loads((store / "road" / "1" / "manifest.json").read_text())
    assert "int8: road IoU " in done.stdout
    assert ("published as model.int8.onnx" in done.stdout) == ("model.int8.onnx" in manifest["files"])
    assert (store / "road" / "1").names() == ["manifest.json", *sorted(manifest["files"])]
    for name, said in manifest["files"].items():
        with (store / "road" / "1" / name).reading() as path:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == said["sha256"]
    again = roadseg_train(*publish)
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert "versions never change" in again.stderr


def test_views_are_evaluated_and_published(tmp_path: Path, camvid: Path) -> None:
    run, store = tmp_path / "run", tmp_path / "models"
    assert roadseg_train("fit", "--data", camvid, "--run", run, "--steps", "1", "--workers", "0").returncode == 0
    views = ("--mirror", "--scales", "0.5,1")
    done = roadseg_train("evaluate", "--run", run, *views, "--robustness-frames", "0")
    assert done.returncode == 0, done.stderr
    metrics = run / "evaluation" / "camvid-heldout-scales-0.5-1-mirror" / "metrics.json"
    evaluation = json.loads(metrics.read_text())
    assert (evaluation["step"], evaluation["mirror"], evaluation["scales"]) == (1, True, [0.5, 1])

    publish = ("publish", "--run", run, "--store", store, "--name", "road", "--version", "1", "--evaluation", metrics)
    done = roadseg_train(*publish)
    assert done.returncode == 1
    assert "publish with the same --mirror and --scales" in done.stderr
    done = roadseg_train(*publish, *views)
    assert done.returncode == 0, done.stderr
    training = json.loads((store / "road" / "1" / "manifest.json").read_text())["training"]
    assert (training["mirror"], training["scales"]) == (True, [0.5, 1])


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
    assert "fitted on some of these images" in done.stdout

    out = tmp_path / "submission"
    words = ("evaluate", "--run", run, "--data", elsewhere, "--kitti-submission", out, "--robustness-frames", "0")
    done = roadseg_train(*words)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.iterdir()] == ["uu_road_000001.png"]
    assert "warning: the server needs all 290 images" in done.stderr

    done = roadseg_train("evaluate", "--run", run)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {data} is not a dataset folder; expected train/ beside trainannot/ (CamVid, SegNet layout) "
        "or training/image_2/ beside training/gt_image_2/ (KITTI Road)\n"
    )


def test_faults_of_the_data_are_told_before_anything_starts(tmp_path: Path, camvid: Path) -> None:
    data = Path(shutil.copytree(camvid, tmp_path / "CamVid"))
    for name in ("0001TP_00003", "0006R0_00009"):  # one to fit on, one held out
        (data / "train" / f"{name}.png").write_bytes(b"")
    done = roadseg_train("fit", "--data", data, "--run", tmp_path / "run", "--workers", "0")
    assert done.returncode == 1
    assert "error: the data has 2 problems; nothing was started\n" in done.stderr
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


def test_data_and_runs_may_be_in_different_places(seaweed: Seaweed, camvid: Path, tmp_path: Path) -> None:
    run = storage_path(f"s3://{BUCKET}/{tmp_path.name}/mixed")
    done = roadseg_train("fit", "--data", camvid, "--run", run, "--steps", "1", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert run.names() == ["checkpoint_0000001", "run.json", "summary.json", "tensorboard"]
    assert f"{tmp_path.name}/mixed/checkpoint_0000001/checkpoint.json" in seaweed.keys(f"{tmp_path.name}/mixed/")
    assert json.loads((run / "run.json").read_text())["data"] == [str(camvid)]


@pytest.mark.parametrize(
    ("bucket", "env", "told"),
    [
        ("nowhere", {}, "create the bucket, or correct its name"),
        (BUCKET, {"AWS_ACCESS_KEY_ID": "wrong"}, "set AWS_ACCESS_KEY_ID"),
        (BUCKET, {"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        (BUCKET, {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "check AWS_ENDPOINT_URL, and that the server runs"),
        ("no_such_form_of_name!", {}, "correct the name of the bucket"),
        (BUCKET, {"AWS_ENDPOINT_URL": "127.0.0.1:8333"}, "set AWS_ENDPOINT_URL to http(s)://host:port"),
    ],
)
@pytest.mark.usefixtures("seaweed")
def test_a_wrong_address_or_key_is_told_at_once(camvid: Path, bucket: str, env: dict[str, str], told: str) -> None:
    done = roadseg_train("fit", "--data", camvid, "--run", f"s3://{bucket}/run", "--workers", "0", **env)
    assert done.returncode == 1
    # One line: nobody was kept waiting for a server that will not come.
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


def test_a_server_that_is_not_s3_is_told(camvid: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        url = f"http://127.0.0.1:{server.server_port}"
        done = roadseg_train("fit", "--data", camvid, "--run", "s3://bucket/run", AWS_ENDPOINT_URL=url, **keys)
        server.shutdown()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot use s3://bucket/run at {url}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("text", "meaning"), [("0", 0), ("2", 2), ("1:4", (1, 4)), ("3:3", (3, 3))])
def test_workers_are_a_number_or_a_range(text: str, meaning: int | tuple[int, int]) -> None:
    assert parse_workers(text) == meaning


@pytest.mark.parametrize("text", ["-1", "0:2", "3:2", "1:2:3", "two", "", "1:"])
def test_other_numbers_of_workers_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither a number nor MIN:MAX"):
        parse_workers(text)
