"""The exception tree. Every message says what to do about it.

RoadsegTrainError
├── DataError               a dataset cannot be used
│   └── InvalidDataError    the same, naming every bad file (in data/problems.py)
├── RunError                a run cannot be resumed, evaluated or published
├── ArtefactError           an artefact cannot be written
└── StorageError            a folder or bucket cannot be read or written
"""


class RoadsegTrainError(Exception):
    """An error that the user can fix; shown without a traceback."""


class DataError(RoadsegTrainError):
    """A dataset folder, image or mask cannot be used."""


class RunError(RoadsegTrainError):
    """A run cannot be resumed, evaluated or published."""


class ArtefactError(RoadsegTrainError):
    """An artefact cannot be written."""


class StorageError(RoadsegTrainError):
    """A folder or bucket cannot be read or written."""
