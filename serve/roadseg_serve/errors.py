"""Every exception that this package raises on purpose, and how an HTTP client sees each.

RoadsegError: StartError stops the server before it serves, RequestError refuses one request, InputError and FileError
belong to `segment`. Each takes one argument, so that it can be pickled on its way between processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Problem:
    """How one kind of error looks to an HTTP client (RFC 9457).

    Attributes:
        kind: never changes; clients may branch on the `type` made of it. "" if the status says it all.
        title: a few words, the same for every occurrence.
        remedy: what a client can do about it, whatever the occurrence.
    """

    status: int
    kind: str
    title: str
    remedy: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """A URN."""
        return f"urn:roadseg:{self.kind}" if self.kind else "about:blank"


class RoadsegError(Exception):
    """Root of all errors below."""


class StartError(RoadsegError):
    """The server cannot start; the text is one line and says what to do."""


class ArtefactError(StartError):
    """The model version is missing, incomplete, damaged or written for another contract."""


class StoreUnreachableError(ArtefactError):
    """The store that holds the model version does not answer."""


class SettingsError(StartError):
    """The settings cannot be read or contradict each other."""


class PortInUseError(StartError):
    """Another program listens on the port."""


class KeysError(StartError):
    """The API keys cannot be read, or there are none."""


class InputError(RoadsegError):
    """`segment` got paths that make no sense together; it did nothing, and the text says what to give instead."""


class FileError(RoadsegError):
    """`segment` cannot read or write one file; it goes on with the others, and the text says what to do."""


class RefitError(RoadsegError):
    """A frame was scaled for another model than the one it reached; the argument is the `SizeRule` of the latter."""


class RequestError(RoadsegError):
    """One request is refused; the text says what to send instead."""

    problem: ClassVar[Problem]


# Title and remedy of its problem say what each of these errors is.
# ruff: noqa: D101


class BadParameterError(RequestError):
    problem = Problem(
        422,
        "bad-parameter",
        "Bad parameter",
        "Leave the parameter out, or send one of the values that the detail names.",
    )


class NotAcceptableError(RequestError):
    problem = Problem(
        406,
        "not-acceptable",
        "Not acceptable",
        "Accept image/jpeg, image/png or application/json, or choose a format with ?format=.",
        {"Vary": "Accept"},
    )


class BadUploadError(RequestError):
    problem = Problem(
        400,
        "bad-upload",
        "Unreadable form",
        "Send multipart/form-data with one file: curl -F file=@road.png <url>/upload",
    )


class MissingFileError(RequestError):
    problem = Problem(422, "missing-file", "No file", "Send the picture as a file in the field 'file'.")


class EmptyFileError(RequestError):
    problem = Problem(400, "empty-file", "Empty file", "Send a file that is not empty.")


class NotAnImageError(RequestError):
    problem = Problem(
        415, "not-an-image", "Not a picture", "Send a PNG, a JPEG or another of the formats that the detail names."
    )


class DamagedImageError(RequestError):
    problem = Problem(400, "damaged-image", "Damaged picture", "Save the picture again and send the whole file.")


class UploadTooLargeError(RequestError):
    problem = Problem(413, "upload-too-large", "Upload too large", "Send a smaller picture, or compress it more.")


class ImageTooLargeError(RequestError):
    problem = Problem(413, "image-too-large", "Picture too large", "Scale the picture down.")


class BadKeyError(RequestError):
    problem = Problem(
        401,
        "bad-key",
        "API key needed",
        "Send a valid API key as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'.",
        {"WWW-Authenticate": "Bearer"},
    )


class RateLimitedError(RequestError):
    problem = Problem(
        429, "rate-limited", "Too many requests", "Wait for the seconds in Retry-After, then send fewer requests."
    )


class ReceiveTimeoutError(RequestError):
    problem = Problem(
        408,
        "receive-timeout",
        "Body too slow",
        "Send a smaller picture, or use a faster connection.",
        {"Connection": "close"},  # nobody reads the rest of the body
    )


class RequestTimeoutError(RequestError):
    problem = Problem(504, "request-timeout", "Answer too late", "Try again later, or send a smaller picture.")


class OverloadedError(RequestError):
    problem = Problem(503, "overloaded", "Too busy", "Try again after the seconds in Retry-After.")


class ModelUnavailableError(RequestError):
    problem = Problem(503, "model-unavailable", "No model available", "Try again after the seconds in Retry-After.")
