"""What is decided without Ray; tests/e2e/test_fit.py runs the workers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from ray.train import WorkerGroupError

from roadseg_train.config import TrainConfig
from roadseg_train.errors import DataError, RunError
from roadseg_train.fit.options import FitOptions
from roadseg_train.fit.progress import Summary
from roadseg_train.fit.run import RunRecord
from roadseg_train.fit.stop import StopSignals
from roadseg_train.fit.workers import MAX_FAILURES, retry, train_on_ray
from roadseg_train.storage.path import storage_path

DONE = Summary(
    stopped=False,
    step=9,
    num_steps=9,
    num_images=9,
    duration_s=1,
    images_per_s=9,
    data_wait_share=0,
    loss=None,
    best_step=None,
    best_heldout={},
    last_heldout={},
    num_workers=1,
    device="cpu",
)


def failing(
    *failures: Exception | None, steps: list[int]
) -> tuple[Callable[[], Summary], Callable[[], int], list[int]]:
    """An attempt whose workers fail like this, one time after the other; its newest step after each; and its calls."""
    calls: list[int] = []

    def attempt() -> Summary:
        calls.append(len(calls))
        failure = failures[len(calls) - 1]
        if failure is None:
            return DONE
        raise WorkerGroupError("a worker failed", {0: failure})

    return attempt, lambda: steps[len(calls)], calls


def test_lost_workers_are_started_again(capsys: pytest.CaptureFixture[str]) -> None:
    attempt, newest_step, calls = failing(RuntimeError("the node died"), None, steps=[0, 5, 9])
    assert retry(attempt, newest_step) == DONE
    assert len(calls) == 2
    assert capsys.readouterr().err == "workers failed (the node died); starting them again from step 5\n"


def test_failures_with_new_checkpoints_between_them_never_count_up() -> None:
    lost = [RuntimeError("the node died")] * (2 * MAX_FAILURES)
    attempt, newest_step, _ = failing(*lost, None, steps=list(range(2 * MAX_FAILURES + 2)))
    assert retry(attempt, newest_step) == DONE


def test_failures_at_one_place_end_the_run() -> None:
    lost = [RuntimeError("out of memory")] * 9
    attempt, newest_step, calls = failing(*lost, steps=[0, 5, 5, 5, 5, 5])
    with pytest.raises(RunError, match=r"failed 3 times without a step beyond 5, most recently with: out of memory"):
        retry(attempt, newest_step)
    assert len(calls) == MAX_FAILURES


def test_what_the_user_can_mend_is_not_tried_again() -> None:
    attempt, newest_step, calls = failing(DataError("no such picture"), None, steps=[0, 0, 0])
    with pytest.raises(DataError, match="no such picture"):
        retry(attempt, newest_step)
    assert len(calls) == 1


def options(num_workers: int | tuple[int, int]) -> FitOptions:
    return FitOptions(num_workers, num_cpus=1, gpu=False, num_loaders=1, compiled=False, checkpoint_every_steps=1)


def test_a_run_folder_that_ends_with_its_job_is_refused(tmp_path: Path, config: TrainConfig) -> None:
    unpacked = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    record = RunRecord(config=config, data=[], split="fit", fit_frames=[])
    with pytest.raises(RunError, match="give another --run"):
        train_on_ray(storage_path(unpacked / "run"), record, options(1), StopSignals())


def test_the_most_workers_must_find_a_picture_each(tmp_path: Path, config: TrainConfig) -> None:
    record = RunRecord(config=config, data=[], split="fit", fit_frames=[])
    with pytest.raises(RunError, match="choose at most 4 workers"):
        train_on_ray(storage_path(tmp_path / "run"), record, options((1, 5)), StopSignals())
