"""Several processes that torch.distributed has joined over Gloo, each with one thread."""

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

TIMEOUT_S = 300

Work = Callable[..., Any]


def in_group(size: int, work: Work, folder: Path, *arguments: object) -> list[Any]:
    """What `work` returns in each of `size` processes that torch.distributed has joined."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    folder.mkdir()
    context = multiprocessing.get_context("spawn")  # a fork would not have the threads that differentiate
    processes = [
        context.Process(target=_join, args=(rank, size, port, folder, work, arguments)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_S)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def _join(rank: int, size: int, port: int, folder: Path, *call: Any) -> None:
    work, arguments = call
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    torch.save(work(*arguments), folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
