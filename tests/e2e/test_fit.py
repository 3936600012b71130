"""Training as a user runs it: processes that are killed, runs that are asked to stop, several workers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from roadseg_train.fit import checkpoint
from roadseg_train.storage.path import StoragePath, storage_path
from tests.e2e.head import BIRTHMARK as HEAD_BIRTHMARK
from tests.e2e.head import Head
from tests.seaweed import BUCKET, Seaweed
from tests.server import processes

TIMEOUT_S = 300
OUTAGE_S = 10
NUM_STEPS, CHECKPOINT_EVERY_STEPS = 60, 10
FIT_BIRTHMARK = "ROADSEG_TEST_FIT"  # every process of a run inherits it


class Fit:
    """One `roadseg-train fit`.

    Attributes:
        run: the place of its run.
        process: the command itself.
        log: all that it prints.
    """

    def __init__(
        self,
        data: Path | StoragePath,
        run: Path | StoragePath,
        log: Path,
        *options: str | int,
        head: Head | None = None,
    ) -> None:
        """Start it; with workers it uses the given Ray, or starts its own."""
        self.run, self.log = storage_path(str(run)), log
        own = uuid.uuid4().hex
        self._birthmark = (FIT_BIRTHMARK, own) if head is None else (HEAD_BIRTHMARK, head.birthmark)
        program = (sys.executable, "-m", "roadseg_train")
        words = ("fit", "--data", data, "--run", run, "--preset", "tiny", "--steps", NUM_STEPS, "--cpus-per-worker", 1)
        often = ("--checkpoint-every", CHECKPOINT_EVERY_STEPS)
        # One thread each, so that every run adds up in the same order.
        settings = {"OMP_NUM_THREADS": "1", "ROADSEG_CACHE": str(log.parent / "cache"), FIT_BIRTHMARK: own}
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*program, *map(str, (*words, *often, *options))],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | settings | (dict(head.env) if head else {}),
                start_new_session=True,
            )

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(TIMEOUT_S)

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Wait until something has happened while the command runs."""
        deadline = time.monotonic() + TIMEOUT_S
        while not what():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def wait_for_step(self, step: int) -> None:
        """Wait until the checkpoint of a step, or a later one, is in place."""
        self.wait_for(lambda: checkpoint.newest_step(self.run) >= step)

    def workers(self) -> list[int]:
        """Process ids of its Ray Train workers, without the loaders that are forked from them."""
        parents = {
            pid: int(status.partition("\nPPid:")[2].split()[0])
            for pid, command, status in processes(*self._birthmark)
            if "RayTrainWorker" in command
        }
        return sorted(worker for worker, parent in parents.items() if parent not in parents)

    def end(self) -> None:
        """Kill it whatever state it is in; a Ray of its own ends with it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def fit(stripes: Path, tmp_path: Path) -> Iterator[Callable[..., Fit]]:
    """Start fits on the striped pictures; none outlives the test."""
    started: list[Fit] = []

    def start(
        run: Path | StoragePath, *options: str | int, data: Path | StoragePath = stripes, head: Head | None = None
    ) -> Fit:
        started.append(Fit(data, run, tmp_path / f"{len(started)}.log", *options, head=head))
        return started[-1]

    yield start
    for each in started:
        each.end()


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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, stripes: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of a run in one process that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    whole = Fit(stripes, folder / "run", folder / "log", "--workers", 0)
    assert whole.wait() == 0, whole.log.read_text()
    return average(whole.run)


def average(run: Path | StoragePath) -> dict[str, torch.Tensor]:
    """The averaged weights of a run that is done."""
    state = checkpoint.read_newest(storage_path(str(run)))
    assert state is not None
    assert state["step"] == NUM_STEPS
    weights: dict[str, torch.Tensor] = state["average"]
    return weights


def saved_when_stopped(stopped: Fit, code: int) -> int:
    """Check that a stopped fit says what it saved; the step."""
    assert stopped.wait() == code, stopped.log.read_text()
    step = checkpoint.newest_step(stopped.run)
    assert f"saved at step {step}; the same command continues from there" in stopped.log.read_text()
    assert json.loads((stopped.run / "summary.json").read_text())["stopped"] is True
    return step


def test_a_run_survives_whatever_ends_its_processes(
    tmp_path: Path, fit: Callable[..., Fit], undisturbed: dict[str, torch.Tensor], head: Head
) -> None:
    here = fit(tmp_path / "run", "--workers", 0)
    here.wait_for_step(10)
    os.killpg(here.process.pid, signal.SIGTERM)  # its loaders too, as a service manager does
    step = saved_when_stopped(here, 143)
    assert 10 <= step < NUM_STEPS

    killed = fit(tmp_path / "run", "--workers", 1)  # with a Ray of its own, which dies with it
    killed.wait_for_step(step + 1)
    (worker,) = killed.workers()
    os.kill(worker, signal.SIGKILL)
    step = checkpoint.newest_step(killed.run)
    killed.wait_for_step(step + 1)  # another worker goes on by itself
    assert worker not in killed.workers()
    assert f"starting them again from step {step}" in killed.log.read_text()
    os.killpg(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    step = checkpoint.newest_step(killed.run)

    stopped = fit(tmp_path / "run", "--workers", 1, head=head)
    stopped.wait_for(lambda: f"/{NUM_STEPS}: loss" in stopped.log.read_text())
    os.kill(stopped.process.pid, signal.SIGTERM)  # the driver alone, as a job manager does
    assert step < saved_when_stopped(stopped, 143) < NUM_STEPS

    last = fit(tmp_path / "run", "--workers", 0)
    assert last.wait() == 0, last.log.read_text()
    # Under Ray and without, cut and whole: the same crops and the same arithmetic, to the last bit.
    torch.testing.assert_close(average(tmp_path / "run"), undisturbed, rtol=0, atol=0)


def test_workers_share_the_batches_and_are_replaced_when_one_dies(
    tmp_path: Path, fit: Callable[..., Fit], head: Head
) -> None:
    run = fit(tmp_path / "run", "--workers", "1:2", head=head)
    run.wait_for_step(10)
    assert len(run.workers()) == 2
    os.kill(run.workers()[-1], signal.SIGKILL)
    assert run.wait() == 0, run.log.read_text()
    assert "starting them again from step" in run.log.read_text()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["step"], summary["num_images"], summary["num_workers"]) == (NUM_STEPS, 8 * NUM_STEPS, 2)
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    # A mask of nothing but road scores the stripe's own share, 0.47. tests/train/network/test_collectives.py compares
    # weights with those of one process in float32; here bfloat16 may be used, whose rounding grows from step to step.
    assert summary["last_heldout"]["road_iou"] > 0.8


def test_a_fault_in_a_worker_is_told_in_one_line(
    tmp_path: Path, stripes: Path, fit: Callable[..., Fit], head: Head
) -> None:
    data = tmp_path / "data"
    shutil.copytree(stripes, data)
    broken = data / "train" / "0001TP_00003.png"
    run = fit(tmp_path / "run", "--workers", 1, data=data, head=head)
    run.wait_for((tmp_path / "run" / "run.json").exists)
    # The check has passed and the workers are yet to start: now the file is damaged, and it is a worker that finds out.
    broken.write_bytes(broken.read_bytes()[:1000])
    assert run.wait() == 1
    text = run.log.read_text()
    assert f"\nerror: {broken} cannot be decoded" in text
    assert "starting them again" not in text


def test_an_outage_of_s3_and_a_checkpoint_cut_short_lose_nothing(
    stripes: Path, fit: Callable[..., Fit], undisturbed: dict[str, torch.Tensor], seaweed: Seaweed, head: Head
) -> None:
    seaweed.put_folder(stripes, "fit/data")
    run, newest = storage_path(f"s3://{BUCKET}/fit/run"), f"fit/run/{checkpoint.folder_name(NUM_STEPS)}"
    driver = fit(run, "--workers", 1, data=storage_path(f"s3://{BUCKET}/fit/data"), head=head)
    try:
        driver.wait_for_step(10)
        seaweed.kill()
        driver.wait_for(lambda: "does not answer for s3://" in driver.log.read_text())
        time.sleep(OUTAGE_S)  # several more attempts
        assert driver.process.poll() is None, driver.log.read_text()
    finally:
        seaweed.start()
    assert driver.wait() == 0, driver.log.read_text()
    torch.testing.assert_close(average(run), undisturbed, rtol=0, atol=0)
    assert "fit/run/.validate_storage_marker" in seaweed.keys("fit/run/")  # Ray's own storage is there too

    seaweed.put(f"{newest}/{checkpoint.STATE}", seaweed.get(f"{newest}/{checkpoint.STATE}")[:-1000])
    resumed = fit(run, "--workers", 0, data=storage_path(f"s3://{BUCKET}/fit/data"))
    assert resumed.wait() == 0, resumed.log.read_text()
    assert f"{checkpoint.folder_name(NUM_STEPS)} was cut short and is not used" in resumed.log.read_text()
    torch.testing.assert_close(average(run), undisturbed, rtol=0, atol=0)
