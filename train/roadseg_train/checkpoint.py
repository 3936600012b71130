"""Checkpoints: a folder with the state and a record that proves it whole."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from roadseg_train.errors import RunError

STATE, RECORD = "state.pt", "checkpoint.json"
NUM_KEPT = 2


class CheckpointRecord(BaseModel):
    """checkpoint.json: written after the state, so that its hash shows whether the state is whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    sha256: str
    metrics: dict[str, float]


def folder_name(step: int) -> str:
    """Name of the checkpoint after `step` steps; names sort as steps do."""
    return f"checkpoint_{step:07d}"


def write(folder: Path, state: dict[str, Any], *, step: int, metrics: dict[str, float]) -> None:
    """Write a checkpoint into an existing, empty folder."""
    torch.save(state, folder / STATE)
    record = CheckpointRecord(step=step, sha256=_sha256(folder / STATE), metrics=metrics)
    (folder / RECORD).write_text(record.model_dump_json(indent=2))


def publish_into(run: Path, state: dict[str, Any], *, step: int, metrics: dict[str, float]) -> None:
    """Write a checkpoint into a run folder in one visible step, and remove all but the newest ones."""
    partial = run / f".partial_{folder_name(step)}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write(partial, state, step=step, metrics=metrics)
    target = run / folder_name(step)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in _folders(run)[NUM_KEPT:]:
        shutil.rmtree(old)


def read_record(folder: Path) -> CheckpointRecord | None:
    """The record of a whole checkpoint; None where the folder was cut short."""
    try:
        record = CheckpointRecord.model_validate_json((folder / RECORD).read_text())
        return record if record.sha256 == _sha256(folder / STATE) else None
    except (FileNotFoundError, ValidationError):
        return None


def read_state(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint, on the CPU.

    Raises:
        RunError: the checkpoint was cut short.
    """
    if read_record(folder) is None:
        raise RunError(f"{folder} is not a whole checkpoint; remove the folder to continue from the one before it")
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def newest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run folder, or None."""
    return next((folder for folder in _folders(run) if read_record(folder) is not None), None)


def _folders(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoint_*/"), reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
