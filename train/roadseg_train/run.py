"""A run: the place of what was asked for, the checkpoints and the evaluations."""

import json

from pydantic import BaseModel, ConfigDict, ValidationError

from roadseg_train import checkpoint
from roadseg_train.config import TrainConfig
from roadseg_train.dataset import PICTURE_SUFFIXES, Frame, find_frames
from roadseg_train.errors import RunError
from roadseg_train.mirror import mirror
from roadseg_train.model import RoadProgram, UNet
from roadseg_train.split import select
from roadseg_train.storage import Place, at

RECORD = "run.json"


class RunRecord(BaseModel):
    """run.json: the configuration and the data of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: TrainConfig
    data: list[str]  # URIs: absolute paths and s3://bucket/prefix
    split: str

    def frames(self, split: str) -> list[Frame]:
        """The frames of a split over all data folders, on this machine.

        Raises:
            DataError: a folder is no dataset, or the split is empty.
            StorageError: a dataset cannot be fetched.
        """
        roots = [mirror(at(uri), PICTURE_SUFFIXES) for uri in self.data]
        return select([frame for root in roots for frame in find_frames(root)], split)

    def heldout_frames(self) -> list[Frame]:
        """What to score checkpoints on: the other side of the cut where the run fits on one side, else nothing."""
        if self.split.startswith("without:"):
            return self.frames(self.split.replace("without", "drive"))
        return self.frames("heldout") if self.split == "fit" else []


def open_run(run: Place, record: RunRecord) -> None:
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


def read_run(run: Place) -> RunRecord:
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


def load_program(run: Place, config: TrainConfig) -> tuple[RoadProgram, int]:
    """The averaged network of the newest whole checkpoint, in eval mode, and the step it was saved at.

    Raises:
        RunError: there is no whole checkpoint.
    """
    state = checkpoint.read_newest(run)
    if state is None:
        raise RunError(f"{run} has no whole checkpoint yet; run fit until the first one is saved")
    network = UNet(config.widths)
    prefix = "module.unet."  # AveragedModel keeps the network under this name, beside its own count
    average = {name.removeprefix(prefix): w for name, w in state["average"].items() if name.startswith(prefix)}
    network.load_state_dict(average)
    return RoadProgram(network).eval(), int(state["step"])


def _differences(started: RunRecord, asked: RunRecord) -> list[str]:
    before, after = json.loads(started.model_dump_json()), json.loads(asked.model_dump_json())
    before, after = before.pop("config") | before, after.pop("config") | after
    return [f"{key}: {before[key]} then, {after[key]} now" for key in before if before[key] != after[key]]
