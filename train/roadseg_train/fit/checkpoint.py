"""Checkpoints: a folder with the state and a record that proves it complete."""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from roadseg_train.config import TrainConfig
from roadseg_train.network.model import UNet
from roadseg_train.storage.path import StoragePath

STATE, RECORD = "state.pt", "checkpoint.json"
NUM_KEPT = 2
PREFIX = "checkpoint_"
AVERAGE_PREFIX = "module.unet."  # of the published weights in the state of torch's AveragedModel


class CheckpointRecord(BaseModel, extra="forbid", frozen=True):
    """checkpoint.json: written after the state, whose hash shows that it is complete."""

    step: int
    sha256: str
    metrics: dict[str, float]


def folder_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps; names sort by step."""
    return f"{PREFIX}{step:07d}"


def save(run: StoragePath, state: dict[str, Any], *, step: int, metrics: dict[str, float]) -> None:
    """Write a checkpoint into a run, the record last, then remove all but the newest ones.

    If StorageError is raised, earlier checkpoints are unchanged.
    """
    folder = run / folder_name(step)
    folder.remove()  # left by an interrupted attempt
    with (folder / STATE).writing() as path:
        try:
            with path.open("wb") as file:
                torch.save(state, file)
        except RuntimeError as error:
            # If a write fails, torch hides the operating system's error behind its own.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        record = CheckpointRecord(step=step, sha256=_sha256(path), metrics=metrics)
    (folder / RECORD).write_text(record.model_dump_json(indent=2))
    for old in _folders(run)[NUM_KEPT:]:
        old.remove()


def read_newest(run: StoragePath) -> dict[str, Any] | None:
    """The state of the newest complete checkpoint of a run, on the CPU, or None."""
    for folder in _folders(run):
        state = _read(folder)
        if state is not None:
            return state
        print(f"note: {folder} was cut short and is not used", file=sys.stderr, flush=True)
    return None


def newest_step(run: StoragePath) -> int:
    """The step of the newest checkpoint that has a record, or 0."""
    for folder in _folders(run):
        if RECORD in folder.names():
            return int(str(folder).rpartition(PREFIX)[2])
    return 0


def averaged_network(average: Mapping[str, Tensor], config: TrainConfig) -> UNet:
    """The averaged U-Net in eval mode, on the CPU, from the "average" of a state."""
    network = UNet(config.widths)
    weights = {name.removeprefix(AVERAGE_PREFIX): w for name, w in average.items() if name.startswith(AVERAGE_PREFIX)}
    network.load_state_dict(weights)
    return network.eval()


def _read(folder: StoragePath) -> dict[str, Any] | None:
    try:
        record = CheckpointRecord.model_validate_json((folder / RECORD).read_text())
        with (folder / STATE).reading() as path:
            complete = _sha256(path) == record.sha256
            return torch.load(path, map_location="cpu", weights_only=True) if complete else None
    except (FileNotFoundError, ValidationError):
        return None


def _folders(run: StoragePath) -> list[StoragePath]:
    return [run / name for name in reversed(run.names()) if name.startswith(PREFIX)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
