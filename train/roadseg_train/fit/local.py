"""Training in this process, without Ray, which need not be installed."""

import torch

from roadseg_train.errors import RunError
from roadseg_train.fit.loop import Action, train
from roadseg_train.fit.options import FitOptions
from roadseg_train.fit.progress import Progress, ProgressDisplay, Summary
from roadseg_train.fit.run import RunRecord
from roadseg_train.fit.stop import StopSignals
from roadseg_train.storage.path import StoragePath


class LocalHost:
    """This process."""

    def __init__(self, stop: StopSignals) -> None:
        self._stop = stop
        self.display = ProgressDisplay()

    def report(self, metrics: dict[str, float]) -> None:
        """Nothing else needs to know."""

    def next_action(self) -> Action:
        """Stop after a signal."""
        return Action.STOP if self._stop.requested.is_set() else Action.CONTINUE

    def show(self, progress: Progress) -> None:
        """Show it on stderr."""
        self.display.show(progress)


def train_locally(run: StoragePath, record: RunRecord, options: FitOptions, stop: StopSignals) -> Summary:
    """Train in this process, see `loop.train`; raises RunError if there is no GPU to train on."""
    if options.gpu and not torch.cuda.is_available():
        raise RunError("torch finds no GPU on this machine; leave out --gpu")
    torch.set_num_threads(options.num_cpus)
    host = LocalHost(stop)
    try:
        return train(run, record, options, host=host, device=torch.device("cuda" if options.gpu else "cpu"))
    finally:
        host.display.close()
