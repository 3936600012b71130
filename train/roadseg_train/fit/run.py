"""A run: the folder of its record, checkpoints and evaluations."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import IMAGE_SUFFIXES, Frame, find_frames
from roadseg_train.data.split import other_side, select
from roadseg_train.errors import RunError
from roadseg_train.fit import checkpoint
from roadseg_train.network.half import round_to_half
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.views import Views
from roadseg_train.storage.cache import local_copy
from roadseg_train.storage.path import StoragePath, storage_path

RECORD = "run.json"


class RunRecord(BaseModel, extra="forbid", frozen=True):
    """run.json: everything that determines the weights of a run."""

    config: TrainConfig
    data: list[str]  # URIs: absolute paths and s3://bucket/prefix
    split: str
    fit_frames: list[str]  # identities, so that an overlap is found even if the data was moved

    @classmethod
    def of(cls, *, config: TrainConfig, data: list[str], split: str) -> "RunRecord":
        """The record of a new run, with the frames that the data has now; raises what `frames` raises."""
        record = cls(config=config, data=data, split=split, fit_frames=[])
        return record.model_copy(update={"fit_frames": [frame.identity for frame in record.frames(split)]})

    def frames(self, split: str) -> list[Frame]:
        """The frames of a split from all data folders, on this machine; raises DataError or StorageError."""
        return select([frame for root in fetch(self.data) for frame in find_frames(root)], split)

    def heldout_frames(self) -> list[Frame]:
        """The frames to score checkpoints on; none if the split holds nothing out."""
        other = other_side(self.split)
        return self.frames(other) if other else []


@dataclass(frozen=True)
class LoadedRun:
    """A run and the weights of its newest checkpoint, after `step` steps, as the program to publish, in eval mode."""

    record: RunRecord
    step: int
    program: RoadProgram


def fetch(data: Sequence[str]) -> list[Path]:
    """Datasets, given as URIs, as folders on this machine; raises StorageError if one cannot be downloaded."""
    return [local_copy(storage_path(uri), IMAGE_SUFFIXES) for uri in data]


def open_run(run: StoragePath, record: RunRecord) -> None:
    """Start a run, or resume one with the same record; raises RunError if the folder belongs to anything else."""
    names = run.names()
    if RECORD in names:
        started = read_run(run)
        if started != record:
            settings = f"other settings ({', '.join(_differences(started, record))})"
            raise RunError(f"{run} was started with {settings}; choose another name, or remove the folder")
    elif names:
        raise RunError(f"{run} exists and is not a run; choose another name or folder")
    else:
        (run / RECORD).write_text(record.model_dump_json(indent=2) + "\n")


def read_run(run: StoragePath) -> RunRecord:
    """The record of a run; raises RunError if the folder is no run, or was written by an incompatible version."""
    try:
        return RunRecord.model_validate_json((run / RECORD).read_text())
    except FileNotFoundError as error:
        raise RunError(f"{run} is not a run (it has no {RECORD}); give the folder that fit printed") from error
    except ValidationError as error:
        raise RunError(f"{run / RECORD} does not fit this version of roadseg: {error}; start a new run") from error


def load_run(run: StoragePath, *, views: Views) -> LoadedRun:
    """The averaged network of a run's newest checkpoint, rounded; raises RunError if no checkpoint is complete."""
    record = read_run(run)
    state = checkpoint.read_newest(run)
    if state is None:
        raise RunError(f"{run} has no complete checkpoint yet; run fit until the first one is saved")
    network = round_to_half(checkpoint.averaged_network(state["average"], record.config))
    return LoadedRun(record, int(state["step"]), RoadProgram(network, views=views).eval())


def _differences(started: RunRecord, requested: RunRecord) -> list[str]:
    before, after = started.model_dump(mode="json"), requested.model_dump(mode="json")
    for fields in (before, after):
        fields.update(fields.pop("config"))
        names = fields.pop("fit_frames")
        fields["frames"] = f"{len(names)} (digest {hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]})"
    return [f"{key}: {before[key]} then, {after[key]} now" for key in before if before[key] != after[key]]
