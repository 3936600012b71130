"""What a run is given to compute with."""

from dataclasses import dataclass

import torch

from roadseg_train.fit.loop import Machine

# As many loaders make crops as quickly as the GPU itself does beside its steps (one H100; see docs/training.md).
GPU_IS_WORTH_LOADERS = 5


@dataclass(frozen=True)
class WorkerPlan:
    """How many workers there are, and what each of them gets.

    Attributes:
        num_workers: exactly, or (least, most): as many of them as the cluster has room for, which may change meanwhile.
        num_cpus: of each, which is also its number of threads.
        gpu: whether each has a GPU, and they talk over NCCL; else it computes on its CPUs, and they talk over Gloo.
        num_loaders: see Machine.
        compiled: see Machine.
    """

    num_workers: int | tuple[int, int]
    num_cpus: int
    gpu: bool
    num_loaders: int
    compiled: bool

    @property
    def most(self) -> int:
        """The largest number of workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    def machine(self, device: torch.device) -> Machine:
        """What one of them computes with, on its device."""
        return Machine(device, num_loaders=self.num_loaders, compiled=self.compiled)


def default_loaders(*, gpu: bool, num_cpus: int) -> int:
    """How many loaders a worker has where nobody says it.

    One beside a CPU that computes. A GPU waits for crops, so that it has all of its worker's cores but two; where those
    are few, it is quicker itself.
    """
    if not gpu:
        return 1
    spare = num_cpus - 2
    return spare if spare > GPU_IS_WORTH_LOADERS else 0
