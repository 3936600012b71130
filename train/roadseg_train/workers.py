"""Where the loop runs: in this process, or on Ray Train workers."""

import functools
import os
from collections.abc import Callable
from typing import Any

import ray.train
import torch
from ray.experimental import tqdm_ray
from ray.train import RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer
from tqdm import tqdm

from roadseg_train import checkpoint, loop, storage
from roadseg_train.errors import RoadsegTrainError, RunError
from roadseg_train.run import RECORD, RunRecord
from roadseg_train.storage import Place


def train_here(run: Place, record: RunRecord) -> None:
    """Train in this process, without Ray, continuing from the newest whole checkpoint of the run."""

    def save(state: dict[str, Any], step: int, metrics: dict[str, float]) -> None:
        checkpoint.publish_into(run, state, step=step, metrics=metrics)

    def make_bar(done: int, total: int) -> loop.ProgressBar:
        return tqdm(initial=done, total=total, unit="step", dynamic_ncols=True)

    _train(run, record, save, make_bar)


def train_on_ray(run: Place, record: RunRecord, *, num_workers: int, cpus_per_worker: int) -> None:
    """Train on Ray Train workers, continuing from the newest whole checkpoint of the run.

    Checkpoints are written and found as without Ray, which is told the metrics only: Ray trusts the newest checkpoint
    that it has noted, and refuses a run when one of those is gone.

    Joins the cluster that the environment names (`RAY_ADDRESS`, or a Ray job's own), else starts one here.

    Raises:
        RoadsegTrainError: what a worker raised of it.
    """
    filesystem, path = storage.for_ray(run)
    parent, _, name = path.rpartition("/")
    if not (parent and name):
        raise RunError(f"{run} is no place for a run under Ray; add a name, such as {run}/first")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here reports to nobody
    trainer = TorchTrainer(
        functools.partial(_worker_loop, run=run.uri, record=record, cpus_per_worker=cpus_per_worker),
        scaling_config=ScalingConfig(num_workers=num_workers, resources_per_worker={"CPU": cpus_per_worker}),
        run_config=RunConfig(name=name, storage_path=parent, storage_filesystem=filesystem),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, RoadsegTrainError):
                raise failure from error
        raise


def _worker_loop(*, run: str, record: RunRecord, cpus_per_worker: int) -> None:
    place = storage.at(run)
    if RECORD not in place.names():
        raise RunError(f"{run} is not the same folder on every node; give a folder that all nodes share, or s3://…")
    torch.set_num_threads(cpus_per_worker)
    rank = ray.train.get_context().get_world_rank()

    def save(state: dict[str, Any], step: int, metrics: dict[str, float]) -> None:
        if rank == 0:
            checkpoint.publish_into(place, state, step=step, metrics=metrics)
        ray.train.report(metrics)

    def make_bar(done: int, total: int) -> loop.ProgressBar:
        bar = tqdm_ray.tqdm(desc="fit", total=total, unit="step")
        bar.update(done)
        return bar

    _train(place, record, save, make_bar)


def _train(run: Place, record: RunRecord, save: loop.Save, make_bar: Callable[[int, int], loop.ProgressBar]) -> None:
    loop.train(
        record.config,
        record.frames(record.split),
        record.heldout_frames(),
        run=run,
        save=save,
        make_bar=make_bar,
    )
