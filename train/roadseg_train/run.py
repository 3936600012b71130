"""A run folder: what was asked for, and the checkpoints."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from roadseg_train import checkpoint
from roadseg_train.config import TrainConfig
from roadseg_train.dataset import Frame, find_frames
from roadseg_train.errors import RunError
from roadseg_train.model import RoadProgram, UNet
from roadseg_train.split import HELDOUT_OF, select

RECORD = "run.json"


class RunRecord(BaseModel):
    """run.json: the configuration and the data of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: TrainConfig
    data: list[Path]
    split: str
    fit_frames: list[str]  # their identities, so that an overlap is seen wherever the data lies, or lay

    @classmethod
    def of(cls, *, config: TrainConfig, data: list[Path], split: str) -> "RunRecord":
        """The record of a new run, with the frames that the data has now.

        Raises:
            DataError: a folder is no dataset, or the split is empty.
        """
        record = cls(config=config, data=data, split=split, fit_frames=[])
        return record.model_copy(update={"fit_frames": [frame.identity for frame in record.frames(split)]})

    def frames(self, split: str) -> list[Frame]:
        """The frames of a split over all data folders.

        Raises:
            DataError: a folder is no dataset, or the split is empty.
        """
        return select(self.all_frames(), split)

    def all_frames(self) -> list[Frame]:
        """Every frame with truth in all data folders.

        Raises:
            DataError: a folder is no dataset, or its pictures and masks do not pair up.
        """
        return [frame for root in self.data for frame in find_frames(root)]

    def heldout_frames(self) -> list[Frame]:
        """What to score checkpoints on: the other side of the cut where the run fits on one side, else nothing."""
        return self.frames(HELDOUT_OF[self.split]) if self.split in HELDOUT_OF else []


def open_run(run: Path, record: RunRecord) -> None:
    """Start a run folder, or continue one that was started with the same record.

    Raises:
        RunError: the folder belongs to another run, or to something else.
    """
    path = run / RECORD
    if not path.exists() and run.exists() and any(run.iterdir()):
        raise RunError(f"{run} exists and is not a run; choose another name or folder")
    if path.exists():
        started = read_run(run)
        if started != record:
            differences = ", ".join(_differences(started, record))
            raise RunError(
                f"{run} was started with other settings ({differences}); choose another name, or remove the folder"
            )
        return
    run.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_dump_json(indent=2) + "\n")


def read_run(run: Path) -> RunRecord:
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


def load_program(run: Path, config: TrainConfig) -> tuple[RoadProgram, int]:
    """The averaged network of the newest whole checkpoint, in eval mode, and the step it was saved at.

    Raises:
        RunError: there is no whole checkpoint.
    """
    folder = checkpoint.newest(run)
    if folder is None:
        raise RunError(f"{run} has no whole checkpoint yet; run fit until the first one is saved")
    state = checkpoint.read_state(folder)
    network = UNet(config.widths)
    prefix = "module."  # AveragedModel keeps the network under this name, beside its own count
    average = {name.removeprefix(prefix): w for name, w in state["average"].items() if name.startswith(prefix)}
    network.load_state_dict(average)
    return RoadProgram(network).eval(), int(state["step"])


def _differences(started: RunRecord, asked: RunRecord) -> list[str]:
    before, after = json.loads(started.model_dump_json()), json.loads(asked.model_dump_json())
    before, after = before.pop("config") | before, after.pop("config") | after
    for fields in (before, after):
        names = fields.pop("fit_frames")
        fields["frames"] = f"{len(names)} (digest {hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]})"
    return [f"{key}: {before[key]} then, {after[key]} now" for key in before if before[key] != after[key]]
