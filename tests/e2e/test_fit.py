"""Training under Ray Train as a user runs it: several workers, and a run whose driver is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from roadseg_train import checkpoint

TIMEOUT_S = 300


def fit_command(data: Path, run: Path, *, steps: int, workers: int) -> list[str]:
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


def average(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = checkpoint.newest(run)
    assert folder is not None
    assert folder.name == checkpoint.folder_name(step)
    weights: dict[str, torch.Tensor] = checkpoint.read_state(folder)["average"]
    return weights


def test_a_killed_driver_resumes_where_it_was(tmp_path: Path, stripes: Path) -> None:
    command = fit_command(stripes, tmp_path / "killed", steps=130, workers=1)
    with (tmp_path / "first.log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    snapshot, deadline = tmp_path / "killed" / "checkpoint_manager_snapshot.json", time.monotonic() + TIMEOUT_S
    while not snapshot.exists():  # written once the checkpoint at step 100 is in place
        assert driver.poll() is None, (tmp_path / "first.log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "first.log").read_text()
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    killed_at = checkpoint.newest(tmp_path / "killed")
    assert killed_at == tmp_path / "killed" / checkpoint.folder_name(100)

    resumed = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert resumed.returncode == 0, resumed.stderr
    undisturbed = fit_command(stripes, tmp_path / "whole", steps=130, workers=0)
    subprocess.run(undisturbed, capture_output=True, timeout=TIMEOUT_S, check=True)
    # Under Ray and without, cut and whole: the same crops and the same arithmetic, to the last bit.
    torch.testing.assert_close(average(tmp_path / "killed", 130), average(tmp_path / "whole", 130), rtol=0, atol=0)


def test_two_workers_share_the_batches(tmp_path: Path, stripes: Path) -> None:
    command = fit_command(stripes, tmp_path / "two", steps=3, workers=2)
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    record = checkpoint.read_record(tmp_path / "two" / checkpoint.folder_name(3))
    assert record is not None
    assert 0 < record.metrics["loss"] < 2
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
