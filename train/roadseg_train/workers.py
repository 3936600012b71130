"""Where the loop runs: in this process, or on Ray Train workers."""

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.experimental import tqdm_ray
from ray.train import Checkpoint, CheckpointConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from tqdm import tqdm

from roadseg_train import checkpoint, loop
from roadseg_train.errors import RoadsegTrainError
from roadseg_train.run import RunRecord


def train_here(run: Path, record: RunRecord) -> None:
    """Train in this process, without Ray, continuing from the newest whole checkpoint of the run folder."""

    def save(state: dict[str, Any], step: int, metrics: dict[str, float]) -> None:
        checkpoint.publish_into(run, state, step=step, metrics=metrics)

    def make_bar(done: int, total: int) -> loop.ProgressBar:
        return tqdm(initial=done, total=total, unit="step", dynamic_ncols=True)

    _train(record, checkpoint.newest(run), save, make_bar)


def train_on_ray(run: Path, record: RunRecord, *, num_workers: int, cpus_per_worker: int) -> None:
    """Train on Ray Train workers, continuing from the newest checkpoint that Ray knows of the run folder.

    Joins the cluster that the environment names (`RAY_ADDRESS`, or a Ray job's own), else starts one here.

    Raises:
        RoadsegTrainError: what a worker raised of it.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here reports to nobody
    trainer = TorchTrainer(
        functools.partial(_worker_loop, record=record, cpus_per_worker=cpus_per_worker),
        scaling_config=ScalingConfig(num_workers=num_workers, resources_per_worker={"CPU": cpus_per_worker}),
        run_config=RunConfig(
            name=run.name,
            storage_path=str(run.parent.resolve()),
            checkpoint_config=CheckpointConfig(num_to_keep=checkpoint.NUM_KEPT),
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, RoadsegTrainError):
                raise failure from error
        raise


def _worker_loop(*, record: RunRecord, cpus_per_worker: int) -> None:
    torch.set_num_threads(cpus_per_worker)
    rank = ray.train.get_context().get_world_rank()

    def save(state: dict[str, Any], step: int, metrics: dict[str, float]) -> None:
        if rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.write(Path(folder), state, step=step, metrics=metrics)
            ray.train.report(
                metrics, Checkpoint.from_directory(folder), checkpoint_dir_name=checkpoint.folder_name(step)
            )

    def make_bar(done: int, total: int) -> loop.ProgressBar:
        bar = tqdm_ray.tqdm(desc="fit", total=total, unit="step")
        bar.update(done)
        return bar

    resume = ray.train.get_checkpoint()
    if resume is None:
        _train(record, None, save, make_bar)
    else:
        with resume.as_directory() as folder:
            _train(record, Path(folder), save, make_bar)


def _train(
    record: RunRecord, resume: Path | None, save: loop.Save, make_bar: Callable[[int, int], loop.ProgressBar]
) -> None:
    loop.train(
        record.config,
        record.frames(record.split),
        record.heldout_frames(),
        resume=resume,
        save=save,
        make_bar=make_bar,
    )
