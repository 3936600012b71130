"""Training on Ray Train workers."""

import asyncio
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import ray
import ray.train.torch
import torch
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.train import LoggingConfig, WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from roadseg_train.errors import RoadsegTrainError, RunError
from roadseg_train.fit import checkpoint
from roadseg_train.fit.loop import Action, check_shares, train
from roadseg_train.fit.options import FitOptions
from roadseg_train.fit.progress import Progress, ProgressDisplay, Summary
from roadseg_train.fit.prometheus import DriverMetrics, WorkerMetrics
from roadseg_train.fit.run import RECORD, RunRecord
from roadseg_train.fit.stop import StopSignals
from roadseg_train.network.collectives import sum_over_workers
from roadseg_train.storage import path as storage
from roadseg_train.storage.path import StoragePath

MAX_FAILURES = 3  # of the workers, without a new checkpoint between them
CHECK_PREEMPTION_EVERY_S = 1.0


class StopNotice:
    """An actor through which the driver asks the first worker to stop."""

    def __init__(self) -> None:
        self._requested = asyncio.Event()

    async def request(self) -> None:
        """Ask the run to stop."""
        self._requested.set()

    async def requested(self) -> None:
        """Return once the run is asked to stop."""
        await self._requested.wait()


class RayHost:
    """A Ray Train worker, of the run of this name and with this device."""

    def __init__(self, run: str, notice: ActorHandle[StopNotice], device: torch.device) -> None:
        self._device = device
        self._first = ray.train.get_context().get_world_rank() == 0
        self._metrics = WorkerMetrics(run) if self._first else None
        self._stop_requested: list[ObjectRef[None]] = [notice.requested.remote()] if self._first else []
        self._next_check_s = 0.0
        self._saved_early = False
        self._display = ProgressDisplay()

    def report(self, metrics: dict[str, float]) -> None:
        """Report the metrics to Ray Train, but not the checkpoint.

        Ray only trusts the newest checkpoint that it was told of, and refuses the run if that one is gone.
        """
        if self._metrics:
            self._metrics.note_checkpoint()
        ray.train.report(metrics)

    def next_action(self) -> Action:
        """Stop if the driver was asked to; save, once, if a node of the group is about to be taken away.

        The first worker checks and tells the others, so that all do the same after the same step.
        """
        stop = check = False
        if self._first:
            stop = bool(ray.wait(self._stop_requested, timeout=0)[0])
            check = time.monotonic() >= self._next_check_s
        stop, check = sum_over_workers(torch.tensor([stop, check], dtype=torch.float32, device=self._device)).tolist()
        if stop:
            return Action.STOP
        if check:
            self._next_check_s = time.monotonic() + CHECK_PREEMPTION_EVERY_S
            # This waits for all workers, too long for every step.
            if ray.train.get_preemption_info() is not None and not self._saved_early:
                self._saved_early = True
                return Action.SAVE
        return Action.CONTINUE

    def show(self, progress: Progress) -> None:
        """Print it, which Ray forwards to the driver, and export it to Prometheus."""
        assert self._metrics is not None, "only the first worker shows progress"
        self._metrics.note_step(progress)
        self._display.show(progress)


def train_on_ray(run: StoragePath, record: RunRecord, options: FitOptions, stop: StopSignals) -> Summary:
    """Train on Ray Train workers, see `loop.train`; raises RunError as well if the workers keep failing.

    Joins the cluster named by the environment (`RAY_ADDRESS`, or the one of a Ray job), or starts one on this machine.
    """
    if "runtime_resources" in PurePosixPath(run.uri).parts:  # where Ray unpacks the working directory of a job
        raise RunError(f"{run} is in the job's working directory, which is deleted after the job; give another --run")
    if "/" not in storage.for_ray(run)[1]:
        raise RunError(f"{run} cannot be a run under Ray; add a name, such as {run}/first")
    check_shares(record.config, options.max_workers)
    # Ray runs in another thread, where it cannot replace our signal handlers. The thread must live to the end, because
    # a Ray that was started in it dies with it.
    with ThreadPoolExecutor(max_workers=1) as ray_thread:
        try:
            ray_thread.submit(_start_ray, options).result()
            stop.listen()
            # On the driver's node, because a worker's node could be lost.
            node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            actor: Any = ray.remote(num_cpus=0)(StopNotice)
            notice = actor.options(scheduling_strategy=node).remote()
            threading.Thread(target=_pass_on, args=(stop, notice), daemon=True).start()
            metrics = DriverMetrics(name_of(run))
            attempt = functools.partial(_start_workers, run, record, options, notice, metrics)
            try:
                return ray_thread.submit(retry, attempt, functools.partial(checkpoint.newest_step, run)).result()
            finally:
                metrics.note_end()  # before Ray ends, which would complain
        finally:
            ray.shutdown()


def retry(attempt: Callable[[], Summary], newest_step: Callable[[], int]) -> Summary:
    """Repeat `attempt` after its workers fail, unless they fail too often without a new checkpoint.

    Ray Train's own retries count failures over the whole run, however long, and repeat what the user has to fix; here
    a worker's RoadsegTrainError is raised again.
    """
    num_failures, step = 0, newest_step()
    while True:
        try:
            return attempt()
        except WorkerGroupError as error:
            for failure in error.worker_failures.values():
                if isinstance(failure, RoadsegTrainError):
                    raise failure from error
            before, step = step, newest_step()
            num_failures = 1 if step > before else num_failures + 1
            reason = str(next(iter(error.worker_failures.values()))).strip().splitlines()[-1]
            if num_failures == MAX_FAILURES:
                raise RunError(
                    f"the workers failed {num_failures} times without a step beyond {step}, most recently with: "
                    f"{reason}; fix that, then run the same command to continue"
                ) from error
            print(f"workers failed ({reason}); starting them again from step {step}", file=sys.stderr, flush=True)


def name_of(run: StoragePath) -> str:
    """The name of the run in Ray and Prometheus: the last part of its path."""
    return storage.for_ray(run)[1].rpartition("/")[2]


def _start_ray(options: FitOptions) -> None:
    os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"  # it prints each line of the workers twice
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.ERROR)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here reports to nobody
    # More workers than cores are slow but work; if Ray did not count enough cores, it would wait for them forever.
    num_cpus = max(os.cpu_count() or 1, options.max_workers * options.num_cpus)
    ray.init(address="local", num_cpus=num_cpus, logging_level=logging.ERROR)


def _pass_on(stop: StopSignals, notice: ActorHandle[StopNotice]) -> None:
    stop.requested.wait()
    print("stopping: saving after this step", file=sys.stderr, flush=True)
    ray.get(notice.request.remote())


def _start_workers(
    run: StoragePath, record: RunRecord, options: FitOptions, notice: ActorHandle[StopNotice], metrics: DriverMetrics
) -> Summary:
    metrics.note_start()
    new: Any = ray.train  # type checkers see the arguments and results of its first version
    filesystem, path = storage.for_ray(run)
    trainer = new.torch.TorchTrainer(
        functools.partial(_work, run.uri, record, options, notice),
        scaling_config=new.ScalingConfig(
            num_workers=options.num_workers,
            use_gpu=options.gpu,
            resources_per_worker={"CPU": options.num_cpus} | ({"GPU": 1} if options.gpu else {}),
        ),
        run_config=new.RunConfig(
            name=name_of(run),
            storage_path=path.rpartition("/")[0],
            storage_filesystem=filesystem,
            logging_config=LoggingConfig("WARNING"),
        ),
    )
    summary: Summary = trainer.fit().return_value
    return summary


def _work(uri: str, record: RunRecord, options: FitOptions, notice: ActorHandle[StopNotice]) -> Summary:
    run = storage.storage_path(uri)
    if RECORD not in run.names():
        raise RunError(f"{run} is not the same folder on every node; give a folder that all nodes share, or s3://…")
    torch.set_num_threads(options.num_cpus)
    device = ray.train.torch.get_device() if options.gpu else torch.device("cpu")
    return train(run, record, options, host=RayHost(name_of(run), notice, device), device=device)
