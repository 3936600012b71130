"""What can go wrong, drawn as a tree; the text of each says what to do about it.

RoadsegTrainError
├── DataError          a dataset folder, picture or mask is not what it should be
├── RunError           a run folder cannot be continued, evaluated or published
├── ArtefactError      an artefact cannot be written
└── StorageError       a folder or bucket cannot be read or written
"""


class RoadsegTrainError(Exception):
    """Any fault that the person at the keyboard can mend; shown without a traceback."""


class DataError(RoadsegTrainError):
    """A dataset folder, picture or mask is not what it should be."""


class RunError(RoadsegTrainError):
    """A run folder cannot be continued, evaluated or published."""


class ArtefactError(RoadsegTrainError):
    """An artefact cannot be written."""


class StorageError(RoadsegTrainError):
    """A folder or bucket cannot be read or written."""
