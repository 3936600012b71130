"""What can go wrong, on one screen, and what an HTTP client is told about it.

* RoadsegError
  * StartError                  the server does not start; the text says what to do
    - ArtefactError             the model's files are missing, damaged or of another contract
      . StoreUnreachableError   the store that holds them does not answer
    - SettingsError             the settings cannot be read, or do not fit together
    - PortInUseError            another program listens on the port
  * RequestError                one request is refused; the server goes on
    - BadUploadError            the body is not a readable multipart form
    - MissingFileError          the form has no file in field `file`
    - EmptyFileError            the file has no bytes
    - NotAnImageError           the bytes are none of the accepted picture formats
    - DamagedImageError         a picture of an accepted format that cannot be decoded
    - UploadTooLargeError       more bytes than the server takes
    - ImageTooLargeError        more pixels than the server takes
    - OverloadedError           too many requests wait already
    - ModelUnavailableError     no model answers now
  * RefitError                  between the stages only: a frame was fitted for another model

Every exception takes one argument, so that it survives the way between processes.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any


class RoadsegError(Exception):
    """Root of all that this package raises on purpose."""


class StartError(RoadsegError):
    """The server cannot start; the text is one line and says what to do."""


class ArtefactError(StartError):
    """The model version is missing, incomplete, damaged or of another contract."""


class StoreUnreachableError(ArtefactError):
    """The store of the model version does not answer."""


class SettingsError(StartError):
    """The settings cannot be read, or do not fit together."""


class PortInUseError(StartError):
    """Another program listens on the wanted port."""


class RequestError(RoadsegError):
    """A request is refused; the text says how to do better."""


class BadUploadError(RequestError):
    """The body is not a readable multipart form."""


class MissingFileError(RequestError):
    """The form has no file in field `file`."""


class EmptyFileError(RequestError):
    """The uploaded file has no bytes."""


class NotAnImageError(RequestError):
    """The uploaded bytes are none of the accepted picture formats."""


class DamagedImageError(RequestError):
    """The uploaded picture cannot be decoded."""


class UploadTooLargeError(RequestError):
    """The upload has more bytes than the server takes."""


class ImageTooLargeError(RequestError):
    """The picture has more pixels than the server takes."""


class OverloadedError(RequestError):
    """Too many requests wait already."""


class ModelUnavailableError(RequestError):
    """No model answers now."""


class RefitError(RoadsegError):
    """A frame was fitted for another model than the one it met; the argument is the size rule of the latter."""


@dataclass(frozen=True)
class Problem:
    """How one kind of error is shown to an HTTP client.

    Attributes:
        status: HTTP status.
        type: stable identifier of the kind, a URN; clients may branch on it.
        title: the kind in a few words, the same for every occurrence.
    """

    status: HTTPStatus
    type: str
    title: str


# The one table from exception to HTTP.
PROBLEMS: dict[type[RequestError], Problem] = {
    BadUploadError: Problem(HTTPStatus.BAD_REQUEST, "urn:roadseg:bad-upload", "Unreadable form"),
    MissingFileError: Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "urn:roadseg:missing-file", "No file"),
    EmptyFileError: Problem(HTTPStatus.BAD_REQUEST, "urn:roadseg:empty-file", "Empty file"),
    NotAnImageError: Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "urn:roadseg:not-an-image", "Not a picture"),
    DamagedImageError: Problem(HTTPStatus.BAD_REQUEST, "urn:roadseg:damaged-image", "Damaged picture"),
    UploadTooLargeError: Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "urn:roadseg:upload-too-large", "Upload too large"
    ),
    ImageTooLargeError: Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "urn:roadseg:image-too-large", "Picture too large"
    ),
    OverloadedError: Problem(HTTPStatus.SERVICE_UNAVAILABLE, "urn:roadseg:overloaded", "Too busy"),
    ModelUnavailableError: Problem(HTTPStatus.SERVICE_UNAVAILABLE, "urn:roadseg:model-unavailable", "No model answers"),
}


def problem_of(error: RequestError) -> Problem:
    """The row of the table for `error`, by its own class or the nearest class it derives from."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def problem_body(problem: Problem, detail: str) -> dict[str, Any]:
    """The RFC 9457 body (`application/problem+json`).

    Args:
        problem: what kind it is.
        detail: what happened this time and what to do about it.
    """
    return {
        "type": problem.type,
        "title": problem.title,
        "status": int(problem.status),
        "detail": detail,
    }
