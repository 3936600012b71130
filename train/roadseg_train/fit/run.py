"""A run: the place of what was asked for, the checkpoints and the evaluations."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from roadseg_train.config import TrainConfig
from roadseg_train.data.dataset import PICTURE_SUFFIXES, Frame, find_frames
from roadseg_train.data.geometry import SizeRule
from roadseg_train.data.split import other_side, select
from roadseg_train.errors import RunError
from roadseg_train.fit import checkpoint
from roadseg_train.network.half import halve
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.network.views import Views
from roadseg_train.storage.cache import local_copy
from roadseg_train.storage.path import StoragePath, storage_path

RECORD = "run.json"


class RunRecord(BaseModel):
    """run.json: the configuration and the data of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: TrainConfig
    data: list[str]  # URIs: absolute paths and s3://bucket/prefix
    split: str
    fit_frames: list[str]  # their identities, so that an overlap is seen wherever the data lies, or lay

    @classmethod
    def of(cls, *, config: TrainConfig, data: list[str], split: str) -> "RunRecord":
        """The record of a new run, with the frames that the data has now.

        Raises:
            DataError: a folder is no dataset, or the split is empty.
        """
        record = cls(config=config, data=data, split=split, fit_frames=[])
        return record.model_copy(update={"fit_frames": [frame.identity for frame in record.frames(split)]})

    def frames(self, split: str) -> list[Frame]:
        """The frames of a split over all data folders, on this machine.

        Raises:
            DataError: a folder is no dataset, or the split is empty.
            StorageError: a dataset cannot be fetched.
        """
        return select(self.all_frames(), split)

    def all_frames(self) -> list[Frame]:
        """Every frame with truth in all data folders, on this machine.

        Raises:
            DataError: a folder is no dataset, or its pictures and masks do not pair up.
            StorageError: a dataset cannot be fetched.
        """
        return [frame for root in fetch(self.data) for frame in find_frames(root)]

    def heldout_frames(self) -> list[Frame]:
        """What to score checkpoints on: the other side of the cut where the run fits on one side, else nothing."""
        other = other_side(self.split)
        return self.frames(other) if other else []


class Member(BaseModel):
    """One network of a program: the run it came from, that run's configuration, and the step it was saved at."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    config: TrainConfig
    step: int


@dataclass(frozen=True)
class LoadedRuns:
    """Runs as one program.

    Attributes:
        record: the first run's, with the frames that any of them was fitted on.
        members: one of each run, in the given order.
        program: the mean of their averaged networks, in eval mode.
    """

    record: RunRecord
    members: list[Member]
    program: RoadProgram


def fetch(data: Sequence[str]) -> list[Path]:
    """Datasets as folders of this machine.

    Args:
        data: URIs.

    Raises:
        StorageError: a dataset cannot be fetched.
    """
    return [local_copy(storage_path(uri), PICTURE_SUFFIXES) for uri in data]


def open_run(run: StoragePath, record: RunRecord) -> None:
    """Start a run folder, or continue one that was started with the same record.

    Raises:
        RunError: the folder belongs to another run, or to something else.
    """
    names = run.names()
    if RECORD in names:
        started = read_run(run)
        if started != record:
            differences = ", ".join(_differences(started, record))
            raise RunError(
                f"{run} was started with other settings ({differences}); choose another name, or remove the folder"
            )
    elif names:
        raise RunError(f"{run} exists and is not a run; choose another name or folder")
    else:
        (run / RECORD).write_text(record.model_dump_json(indent=2) + "\n")


def read_run(run: StoragePath) -> RunRecord:
    """The record of a run folder.

    Raises:
        RunError: the folder is no run.
    """
    try:
        return RunRecord.model_validate_json((run / RECORD).read_text())
    except FileNotFoundError as error:
        raise RunError(f"{run} is no run folder (it has no {RECORD}); give the folder that fit printed") from error
    except ValidationError as error:
        raise RunError(f"{run / RECORD} is not of this version of roadseg: {error}; start a new run") from error


def load_runs(runs: Sequence[StoragePath], *, views: Views) -> LoadedRuns:
    """The averaged networks of the newest whole checkpoints as the program that is published, weights rounded.

    Args:
        runs: at least one; of one split and one size rule.
        views: see `RoadProgram`.

    Raises:
        RunError: one is no run or has no whole checkpoint, or they cannot be one program.
    """
    if len({run.uri for run in runs}) < len(runs):
        raise RunError("the same run is given twice; name each once")
    records = [read_run(run) for run in runs]
    for run, record in zip(runs, records, strict=True):
        if record.split != records[0].split:
            raise RunError(
                f"{runs[0]} was fitted on {records[0].split!r} and {run} on {record.split!r}; give runs of one split"
            )
        if SizeRule.of(record.config) != SizeRule.of(records[0].config):
            raise RunError(
                f"{runs[0]} and {run} see pictures at different sizes; give runs that have short_side_px, "
                "max_long_side_px and multiple_px in common"
            )
    networks, members = [], []
    for run, record in zip(runs, records, strict=True):
        network, step = _load_network(run, record.config)
        networks.append(network)
        members.append(Member(run=str(run), config=record.config, step=step))
    fitted = dict.fromkeys(frame for record in records for frame in record.fit_frames)
    return LoadedRuns(
        record=records[0].model_copy(update={"fit_frames": list(fitted)}),
        members=members,
        program=RoadProgram(*networks, views=views).eval(),
    )


def _load_network(run: StoragePath, config: TrainConfig) -> tuple[UNet, int]:
    state = checkpoint.read_newest(run)
    if state is None:
        raise RunError(f"{run} has no whole checkpoint yet; run fit until the first one is saved")
    network = UNet(config.widths).eval()
    prefix = "module.unet."  # AveragedModel keeps the network under this name, beside its own count
    average = {name.removeprefix(prefix): w for name, w in state["average"].items() if name.startswith(prefix)}
    network.load_state_dict(average)
    return halve(network), int(state["step"])


def _differences(started: RunRecord, asked: RunRecord) -> list[str]:
    before, after = json.loads(started.model_dump_json()), json.loads(asked.model_dump_json())
    before, after = before.pop("config") | before, after.pop("config") | after
    for fields in (before, after):
        names = fields.pop("fit_frames")
        fields["frames"] = f"{len(names)} (digest {hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]})"
    return [f"{key}: {before[key]} then, {after[key]} now" for key in before if before[key] != after[key]]
