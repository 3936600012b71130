"""Runs on Ray Train workers."""

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
from ray.experimental import tqdm_ray
from ray.train import LoggingConfig, WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from roadseg_train.errors import RoadsegTrainError, RunError
from roadseg_train.fit import checkpoint, loop
from roadseg_train.fit.here import train_record
from roadseg_train.fit.loop import Wish
from roadseg_train.fit.plan import WorkerPlan
from roadseg_train.fit.progress import Bar, BarDisplay, LineDisplay, Progress, Summary, display
from roadseg_train.fit.prometheus import DriverMetrics, WorkerMetrics
from roadseg_train.fit.run import RECORD, RunRecord
from roadseg_train.fit.stop import StopSignals
from roadseg_train.network.group import sum_over_workers
from roadseg_train.storage import path as storage
from roadseg_train.storage.path import StoragePath

MAX_FAILURES = 3  # of the workers, without a new checkpoint between them
LOOK_EVERY_S = 1.0  # for a node that is to be taken away


class StopNotice:
    """An actor that hears of the wish to stop from the driver, and tells the first worker."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    async def ask(self) -> None:
        """Ask the run to stop."""
        self._asked.set()

    async def asked(self) -> None:
        """Return when it is asked to."""
        await self._asked.wait()


class RayHost:
    """A Ray Train worker.

    Args:
        run: its name.
        notice: of a wish to stop.
        device: of this worker.
        terminal: whether the driver prints to one.
    """

    def __init__(self, run: str, notice: ActorHandle[StopNotice], device: torch.device, *, terminal: bool) -> None:
        self._device = device
        self._first = ray.train.get_context().get_world_rank() == 0
        self._metrics = WorkerMetrics(run) if self._first else None
        self._stop_asked: list[ObjectRef[None]] = [notice.asked.remote()] if self._first else []
        self._next_look_s: float = 0.0
        self._saved_early: bool = False
        self.display: BarDisplay | LineDisplay = display(_ray_bar if terminal else None)

    def report(self, metrics: dict[str, float]) -> None:
        """Tell Ray Train the metrics, and not of the checkpoint.

        Ray trusts the newest checkpoint that it has noted, and refuses a run when one of those is gone.
        """
        if self._metrics:
            self._metrics.note_checkpoint()
        ray.train.report(metrics)

    def wish(self) -> Wish:
        """Stop where the driver was asked to; save, once, when a node of the group is about to be taken away.

        The first worker looks, and all hear of it, so that all do the same after the same step.
        """
        stop = look = False
        if self._first:
            stop = bool(ray.wait(self._stop_asked, timeout=0)[0])
            look = time.monotonic() >= self._next_look_s
        stop, look = sum_over_workers(torch.tensor([stop, look], dtype=torch.float32, device=self._device)).tolist()
        if stop:
            return Wish.STOP
        if look:
            self._next_look_s = time.monotonic() + LOOK_EVERY_S
            # Waits for all workers, which is too long for every step.
            if ray.train.get_preemption_info() is not None and not self._saved_early:
                self._saved_early = True
                return Wish.SAVE
        return Wish.GO_ON

    def show(self, progress: Progress) -> None:
        """Show it where the driver is, and to Prometheus."""
        assert self._metrics is not None, "only the first worker shows"
        self._metrics.note_step(progress)
        self.display.show(progress)


def train_on_ray(run: StoragePath, record: RunRecord, plan: WorkerPlan, stop: StopSignals) -> Summary:
    """Train on Ray Train workers, continuing from the newest whole checkpoint of the run.

    Joins the cluster that the environment names (`RAY_ADDRESS`, or a Ray job's own), else starts one here.

    Raises:
        RoadsegTrainError: what a worker raised of it, or the workers fail again and again.
    """
    if "runtime_resources" in PurePosixPath(run.uri).parts:  # where Ray unpacks the working directory of a job
        raise RunError(
            f"{run} is in the job's working directory, which ends with the job; give --run a path that stays"
        )
    if "/" not in storage.for_ray(run)[1]:
        raise RunError(f"{run} is no place for a run under Ray; add a name, such as {run}/first")
    loop.check_shares(record.config, plan.most)
    # Ray starts, and is called, in a thread of its own, where it cannot put signal handlers in place of ours. The
    # thread lives on to the end, because a Ray that was started here dies with it.
    with ThreadPoolExecutor(max_workers=1) as ray_thread:
        try:
            ray_thread.submit(_start_ray, plan).result()
            stop.listen()
            # Beside this driver, whose end it does not outlive; on a worker's node it could be lost with that.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            actor: Any = ray.remote(num_cpus=0)(StopNotice)
            notice = actor.options(scheduling_strategy=here).remote()
            threading.Thread(target=_pass_on, args=(stop, notice), daemon=True).start()
            metrics = DriverMetrics(name_of(run))

            def fit() -> Summary:
                metrics.note_start()
                return _fit(run, record, plan, notice)

            try:
                return ray_thread.submit(persist, fit, functools.partial(checkpoint.newest_step, run)).result()
            finally:
                metrics.note_end()  # before Ray is, which would complain
        finally:
            ray.shutdown()


def persist(fit: Callable[[], Summary], newest_step: Callable[[], int]) -> Summary:
    """Call `fit` again when its workers failed, as long as there is a new checkpoint at least every few times.

    Ray Train's own retries count failures over the whole run, however long it is, and repeat what no retry can mend.

    Raises:
        RoadsegTrainError: what a worker raised of it, at once; or the workers failed too often.
    """
    num_failures, step = 0, newest_step()
    while True:
        try:
            return fit()
        except WorkerGroupError as error:
            for failure in error.worker_failures.values():
                if isinstance(failure, RoadsegTrainError):
                    raise failure from error
            before, step = step, newest_step()
            num_failures = 1 if step > before else num_failures + 1
            reason = str(next(iter(error.worker_failures.values()))).strip().splitlines()[-1]
            if num_failures == MAX_FAILURES:
                raise RunError(
                    f"the workers failed {num_failures} times without a step beyond {step}, at last with: {reason}; "
                    "when that is mended, the same command continues"
                ) from error
            print(f"workers failed ({reason}); starting them again from step {step}", file=sys.stderr, flush=True)


def name_of(run: StoragePath) -> str:
    """What Ray and Prometheus call the run: the last part of its place."""
    return storage.for_ray(run)[1].rpartition("/")[2]


def _start_ray(plan: WorkerPlan) -> None:
    os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"  # it prints each line of the workers twice
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.ERROR)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray that is started here reports to nobody
    # More workers than cores are slow, but they work; without the cores in its books Ray would wait for them for ever.
    num_cpus = max(os.cpu_count() or 1, plan.most * plan.num_cpus)
    ray.init(address="local", num_cpus=num_cpus, logging_level=logging.ERROR)


def _pass_on(stop: StopSignals, notice: ActorHandle[StopNotice]) -> None:
    stop.asked.wait()
    print("asked to stop: saving after this step", file=sys.stderr, flush=True)
    ray.get(notice.ask.remote())


def _fit(run: StoragePath, record: RunRecord, plan: WorkerPlan, notice: ActorHandle[StopNotice]) -> Summary:
    new: Any = ray.train  # type checkers see what its first version took and returned
    filesystem, path = storage.for_ray(run)
    parent = path.rpartition("/")[0]
    resources = {"CPU": plan.num_cpus} | ({"GPU": 1} if plan.gpu else {})
    trainer = new.torch.TorchTrainer(
        functools.partial(_worker_loop, run.uri, record, plan, notice, terminal=sys.stderr.isatty()),
        scaling_config=new.ScalingConfig(
            num_workers=plan.num_workers, use_gpu=plan.gpu, resources_per_worker=resources
        ),
        run_config=new.RunConfig(
            name=name_of(run),
            storage_path=parent,
            storage_filesystem=filesystem,
            logging_config=LoggingConfig("WARNING"),
        ),
    )
    summary: Summary = trainer.fit().return_value
    return summary


def _worker_loop(
    run: str, record: RunRecord, plan: WorkerPlan, notice: ActorHandle[StopNotice], *, terminal: bool
) -> Summary:
    place = storage.storage_path(run)
    if RECORD not in place.names():
        raise RunError(f"{run} is not the same folder on every node; give a folder that all nodes share, or s3://…")
    torch.set_num_threads(plan.num_cpus)
    device = ray.train.torch.get_device() if plan.gpu else torch.device("cpu")
    host = RayHost(name_of(place), notice, device, terminal=terminal)
    try:
        return train_record(place, record, host, plan.machine(device))
    finally:
        host.display.close()


def _ray_bar(done: int, total: int) -> Bar:
    bar = tqdm_ray.tqdm(total=total, unit="step")
    bar.update(done)
    return bar
