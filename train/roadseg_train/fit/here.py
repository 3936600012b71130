"""Runs in this process, without Ray, which need not even be installed."""

import sys

import torch
from tqdm import tqdm

from roadseg_train.errors import RunError
from roadseg_train.fit import loop
from roadseg_train.fit.loop import Host, Machine, Wish
from roadseg_train.fit.plan import WorkerPlan
from roadseg_train.fit.progress import Bar, Progress, Summary, display
from roadseg_train.fit.run import RunRecord
from roadseg_train.fit.stop import StopSignals
from roadseg_train.storage.path import StoragePath


class HereHost:
    """This process, without Ray."""

    def __init__(self, stop: StopSignals) -> None:
        self._stop = stop
        self.display = display(_terminal_bar if sys.stderr.isatty() else None)

    def report(self, metrics: dict[str, float]) -> None:
        """Nobody else has to hear of it."""

    def wish(self) -> Wish:
        """Stop where a signal has come."""
        return Wish.STOP if self._stop.asked.is_set() else Wish.GO_ON

    def show(self, progress: Progress) -> None:
        """Show it on stderr."""
        self.display.show(progress)


def train_here(run: StoragePath, record: RunRecord, plan: WorkerPlan, stop: StopSignals) -> Summary:
    """Train in this process, without Ray, continuing from the newest whole checkpoint of the run.

    Raises:
        RunError: there is no GPU to train on.
    """
    if plan.gpu and not torch.cuda.is_available():
        raise RunError("this machine has no GPU that torch can use; leave out --gpu")
    torch.set_num_threads(plan.num_cpus)
    host = HereHost(stop)
    device = torch.device("cuda" if plan.gpu else "cpu")
    try:
        return train_record(run, record, host, plan.machine(device))
    finally:
        host.display.close()


def train_record(run: StoragePath, record: RunRecord, host: Host, machine: Machine) -> Summary:
    """Train what a record asks for, as `loop.train` does."""
    return loop.train(
        record.config,
        record.frames(record.split),
        record.heldout_frames(),
        run=run,
        host=host,
        machine=machine,
    )


def _terminal_bar(done: int, total: int) -> Bar:
    return tqdm(initial=done, total=total, bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}", dynamic_ncols=True)
