"""What can go wrong, on one screen, and what an HTTP client is told about it.

* RoadsegError
  * StartError                  the server does not start; the text says what to do
    - ArtefactError             the model's files are missing, damaged or of another contract
      . StoreUnreachableError   the store that holds them does not answer
    - SettingsError             the settings cannot be read, or do not fit together
    - PortInUseError            another program listens on the port
    - KeysError                 the API keys cannot be read, or there are none
  * InputError                  what `segment` was told to read or write makes no sense together
  * FileError                   one file of `segment` cannot be read or written; the rest goes on
  * RequestError                one request is refused; the server goes on
    - BadParameterError         a query parameter is not what the route takes
    - NotAcceptableError        no answer is of a type that the client accepts
    - BadUploadError            the body is not a readable multipart form
    - MissingFileError          the form has no file in field `file`
    - EmptyFileError            the file has no bytes
    - NotAnImageError           the bytes are none of the accepted picture formats
    - DamagedImageError         a picture of an accepted format that cannot be decoded
    - UploadTooLargeError       more bytes than the server takes
    - ImageTooLargeError        more pixels than the server takes
    - BadKeyError               no API key was sent, or one that is not valid
    - RateLimitedError          this client has sent too many requests
    - ReceiveTimeoutError       the body arrived too slowly
    - RequestTimeoutError       the answer took too long
    - OverloadedError           too many requests wait already
    - ModelUnavailableError     no model answers now
  * RefitError                  between the stages only: a frame was fitted for another model

Every exception takes one argument, so that it survives the way between processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


class KeysError(StartError):
    """The API keys cannot be read, or there are none."""


class InputError(RoadsegError):
    """The paths given cannot be segmented; nothing was done, and the text says what to give instead."""


class FileError(RoadsegError):
    """One file cannot be read or written, or only in part; the text says what to do."""


class RequestError(RoadsegError):
    """A request is refused; the text says how to do better."""


class BadParameterError(RequestError):
    """A query parameter is not what the route takes."""


class NotAcceptableError(RequestError):
    """No answer is of a type that the client accepts."""


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


class BadKeyError(RequestError):
    """No API key was sent, or one that is not valid."""


class RateLimitedError(RequestError):
    """This client has sent too many requests."""


class ReceiveTimeoutError(RequestError):
    """The body arrived too slowly."""


class RequestTimeoutError(RequestError):
    """The answer took too long."""


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
        remedy: what a client can do about it, whatever the occurrence.
        headers: that go with every answer of this kind.
    """

    status: HTTPStatus
    type: str
    title: str
    remedy: str
    headers: Mapping[str, str] = field(default_factory=dict)


PROBLEM_JSON = "application/problem+json"

# The one table from exception to HTTP.
PROBLEMS: dict[type[RequestError], Problem] = {
    BadParameterError: Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "urn:roadseg:bad-parameter",
        "Bad parameter",
        "Leave the parameter out, or send one of the values that the detail names.",
    ),
    NotAcceptableError: Problem(
        HTTPStatus.NOT_ACCEPTABLE,
        "urn:roadseg:not-acceptable",
        "No such answer",
        "Accept image/jpeg, image/png or application/json, or choose with ?format=.",
        {"Vary": "Accept"},
    ),
    BadUploadError: Problem(
        HTTPStatus.BAD_REQUEST,
        "urn:roadseg:bad-upload",
        "Unreadable form",
        "Send multipart/form-data with one file: curl -F file=@road.png <url>/upload",
    ),
    MissingFileError: Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "urn:roadseg:missing-file",
        "No file",
        "Send the picture as a file in the field 'file'.",
    ),
    EmptyFileError: Problem(
        HTTPStatus.BAD_REQUEST,
        "urn:roadseg:empty-file",
        "Empty file",
        "Send the picture's bytes.",
    ),
    NotAnImageError: Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "urn:roadseg:not-an-image",
        "Not a picture",
        "Send a PNG, a JPEG or another of the formats that the detail names.",
    ),
    DamagedImageError: Problem(
        HTTPStatus.BAD_REQUEST,
        "urn:roadseg:damaged-image",
        "Damaged picture",
        "Save the picture again and send the whole file.",
    ),
    UploadTooLargeError: Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "urn:roadseg:upload-too-large",
        "Upload too large",
        "Send a smaller or more compressed picture.",
    ),
    ImageTooLargeError: Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "urn:roadseg:image-too-large",
        "Picture too large",
        "Scale the picture down.",
    ),
    BadKeyError: Problem(
        HTTPStatus.UNAUTHORIZED,
        "urn:roadseg:bad-key",
        "API key needed",
        "Send a valid API key as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'.",
        {"WWW-Authenticate": "Bearer"},
    ),
    RateLimitedError: Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "urn:roadseg:rate-limited",
        "Too many requests",
        "Try again after the seconds in Retry-After, and ask less often.",
    ),
    ReceiveTimeoutError: Problem(
        HTTPStatus.REQUEST_TIMEOUT,
        "urn:roadseg:receive-timeout",
        "Body too slow",
        "Send a smaller picture, or send it over a faster connection.",
        {"Connection": "close"},  # the rest of the body is not waited for
    ),
    RequestTimeoutError: Problem(
        HTTPStatus.GATEWAY_TIMEOUT,
        "urn:roadseg:request-timeout",
        "Answer too late",
        "Try again later, or send a smaller picture.",
    ),
    OverloadedError: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "urn:roadseg:overloaded",
        "Too busy",
        "Try again after the seconds in Retry-After.",
    ),
    ModelUnavailableError: Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "urn:roadseg:model-unavailable",
        "No model answers",
        "Try again after the seconds in Retry-After.",
    ),
}


def bare_problem(status: HTTPStatus) -> Problem:
    """A problem that its HTTP status says all about, such as 404; its type is about:blank, as RFC 9457 asks."""
    return Problem(status, "about:blank", status.phrase, "See /docs.")


def problem_of(error: RequestError) -> Problem:
    """The row of the table for `error`, by its own class or the nearest class it derives from."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def problem_body(problem: Problem, detail: str, request_id: str) -> dict[str, Any]:
    """The RFC 9457 body (`application/problem+json`).

    Args:
        problem: what kind it is.
        detail: what happened this time and what to do about it.
        request_id: under which the server's log has it.
    """
    return {
        "type": problem.type,
        "title": problem.title,
        "status": int(problem.status),
        "detail": detail,
        "request_id": request_id,
    }
