"""The exceptions; every message says what to do about it."""


class RoadsegTrainError(Exception):
    """An error that the user can fix; shown without a traceback."""


class DataError(RoadsegTrainError):
    """A dataset folder, image or mask cannot be used; data/problems.py has one that names every bad file."""


class RunError(RoadsegTrainError):
    """A run cannot be resumed, evaluated or published."""


class ArtefactError(RoadsegTrainError):
    """An artefact cannot be written."""


class StorageError(RoadsegTrainError):
    """A folder or bucket cannot be read or written."""
