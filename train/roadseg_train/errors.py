"""What can go wrong, drawn as a tree; the text of each says what to do about it.

RoadsegTrainError
├── DataError          a dataset folder, picture or mask is not what it should be
│   └── FaultyDataError    the same, with every faulty file by name
├── RunError           a run folder cannot be continued, evaluated or published
├── ArtefactError      an artefact cannot be written
└── StorageError       a folder or bucket cannot be read or written
"""

from collections.abc import Sequence

from roadseg_train.data.faults import Fault, describe


class RoadsegTrainError(Exception):
    """Any fault that the person at the keyboard can mend; shown without a traceback."""


class DataError(RoadsegTrainError):
    """A dataset folder, picture or mask is not what it should be."""


class FaultyDataError(DataError):
    """Files of a dataset are not what they should be; shows every one of them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(faults)  # as the only argument, so that it survives the way from a worker
        self.faults = faults

    def __str__(self) -> str:
        return describe(self.faults)


class RunError(RoadsegTrainError):
    """A run folder cannot be continued, evaluated or published."""


class ArtefactError(RoadsegTrainError):
    """An artefact cannot be written."""


class StorageError(RoadsegTrainError):
    """A folder or bucket cannot be read or written."""
