"""How a run is computed."""

from dataclasses import dataclass

# This many loaders make crops as fast as the GPU does between its steps (one H100; see docs/training.md).
GPU_IS_WORTH_LOADERS = 5


@dataclass(frozen=True)
class FitOptions:
    """What does not determine the weights, so that a run may resume with other options."""

    num_workers: int | tuple[int, int]  # or (least, most) for what the cluster has room for; 0 trains in this process
    num_cpus: int  # per worker; also its number of threads
    gpu: bool  # whether each worker has a GPU and communicates over NCCL, not Gloo
    num_loaders: int  # processes per worker that make crops ahead; with 0, the worker makes them on its device
    compiled: bool  # by torch.compile, which takes a minute and then makes steps faster
    checkpoint_every_steps: int

    @property
    def max_workers(self) -> int:
        """The largest number of workers."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]


def default_loaders(*, gpu: bool, num_cpus: int) -> int:
    """One per worker on a CPU, which also computes; with a GPU, all but two cores, or none if a GPU is faster."""
    if not gpu:
        return 1
    spare = num_cpus - 2
    return spare if spare > GPU_IS_WORTH_LOADERS else 0
