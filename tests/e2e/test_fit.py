"""Training under Ray Train as a user runs it: several workers, and a run whose driver is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from roadseg_train import checkpoint
from roadseg_train.storage import Place, at
from tests.seaweed import BUCKET, Seaweed

TIMEOUT_S = 300
OUTAGE_S = 30


def fit_command(data: Path | Place, run: Path | Place, *, steps: int, workers: int) -> list[str]:
    words = ("fit", "--data", data, "--run", run, "--preset", "tiny", "--steps", steps, "--workers", workers)
    # One thread each, so that every run adds up in the same order.
    program = (sys.executable, "-c", "from roadseg_train.cli import main; main()")
    return ["env", "OMP_NUM_THREADS=1", *map(str, (*program, *words, "--cpus-per-worker", 1))]


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CamVid folder of ten pictures: a bright stripe, which is the road, on noise."""
    root, rng = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    for part in ("train", "trainannot"):
        (root / part).mkdir()
    for i in range(10):
        label = np.zeros((48, 64), dtype=np.uint8)
        label[:, 10 + i : 40 + i] = 3
        picture = rng.integers(0, 100, (48, 64, 3), dtype=np.uint8) + (label == 3)[..., None] * np.uint8(120)
        Image.fromarray(picture).save(root / "train" / f"0001TP_{i:05d}.png")
        Image.fromarray(label).save(root / "trainannot" / f"0001TP_{i:05d}.png")
    return root


def average(run: Path | Place, step: int) -> dict[str, torch.Tensor]:
    state = checkpoint.read_newest(at(str(run)))
    assert state is not None
    assert state["step"] == step
    weights: dict[str, torch.Tensor] = state["average"]
    return weights


def wait_for(happened: Callable[[], object], driver: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not happened():
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The averaged weights after 130 steps in one process, where nothing happens."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run(fit_command(stripes, run, steps=130, workers=0), capture_output=True, timeout=TIMEOUT_S, check=True)
    return average(run, 130)


def test_a_killed_driver_resumes_where_it_was(
    tmp_path: Path, stripes: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    command = fit_command(stripes, tmp_path / "killed", steps=130, workers=1)
    with (tmp_path / "first.log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    first = tmp_path / "killed" / checkpoint.folder_name(100)
    wait_for((first / checkpoint.RECORD).exists, driver, tmp_path / "first.log")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert average(tmp_path / "killed", 100).keys()

    resumed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert resumed.returncode == 0, resumed.stderr
    # Under Ray and without, cut and whole: the same crops and the same arithmetic, to the last bit.
    torch.testing.assert_close(average(tmp_path / "killed", 130), undisturbed, rtol=0, atol=0)


def test_two_workers_share_the_batches(tmp_path: Path, stripes: Path) -> None:
    command = fit_command(stripes, tmp_path / "two", steps=3, workers=2)
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "two" / checkpoint.folder_name(3) / checkpoint.RECORD).read_text())
    assert 0 < record["metrics"]["loss"] < 2
    assert average(tmp_path / "two", 3).keys()


def test_a_fault_in_a_worker_is_told_in_one_line(tmp_path: Path, stripes: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(stripes, data)
    broken = data / "train" / "0001TP_00003.png"
    command = fit_command(data, tmp_path / "run", steps=3, workers=1)
    fit = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + TIMEOUT_S
    while not (tmp_path / "run" / "run.json").exists():
        assert fit.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # The check has passed and Ray is yet to start: now the file is damaged, and it is a worker that finds out.
    broken.write_bytes(broken.read_bytes()[:1000])
    _, stderr = fit.communicate(timeout=TIMEOUT_S)
    assert fit.returncode == 1
    assert f"\nerror: {broken} cannot be decoded" in stderr


def test_an_outage_of_s3_and_a_checkpoint_cut_short_lose_nothing(
    tmp_path: Path,
    stripes: Path,
    undisturbed: dict[str, torch.Tensor],
    seaweed: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path / "cache"))
    seaweed.put_folder(stripes, "fit/data")
    run, newest = at(f"s3://{BUCKET}/fit/run"), f"fit/run/{checkpoint.folder_name(130)}"
    command = fit_command(at(f"s3://{BUCKET}/fit/data"), run, steps=130, workers=1)
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        first = run / checkpoint.folder_name(100)
        wait_for(lambda: checkpoint.RECORD in first.names(), driver, tmp_path / "log")
        seaweed.kill()
        time.sleep(OUTAGE_S)
        assert driver.poll() is None, (tmp_path / "log").read_text()
    finally:
        seaweed.start()
    assert driver.wait(TIMEOUT_S) == 0, (tmp_path / "log").read_text()
    assert "does not answer for s3://" in (tmp_path / "log").read_text()
    torch.testing.assert_close(average(run, 130), undisturbed, rtol=0, atol=0)
    assert "fit/run/.validate_storage_marker" in seaweed.keys("fit/run/")  # Ray's own storage is there too

    seaweed.put(f"{newest}/{checkpoint.STATE}", seaweed.get(f"{newest}/{checkpoint.STATE}")[:-1000])
    resumed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{checkpoint.folder_name(130)} was cut short and is not used" in resumed.stdout + resumed.stderr
    torch.testing.assert_close(average(run, 130), undisturbed, rtol=0, atol=0)
