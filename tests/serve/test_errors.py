"""The exception tree and its table."""

import pickle

import pytest

from roadseg_serve import errors
from roadseg_serve.errors import PROBLEMS, RequestError, problem_body, problem_of


def test_every_request_error_is_in_the_table() -> None:
    assert set(RequestError.__subclasses__()) == set(PROBLEMS)


def test_every_error_is_drawn() -> None:
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.RoadsegError):
            assert errors.__doc__ is not None
            assert name in errors.__doc__


@pytest.mark.parametrize("kind", PROBLEMS)
def test_what_a_client_sent_is_never_the_servers_fault(kind: type[RequestError]) -> None:
    ours = (errors.RequestTimeoutError, errors.ModelUnavailableError, errors.OverloadedError)
    assert 400 <= PROBLEMS[kind].status < 500 or kind in ours


@pytest.mark.parametrize("kind", PROBLEMS)
def test_errors_survive_the_way_between_processes(kind: type[RequestError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what to do")))  # noqa: S301 our own bytes
    assert (type(copy), str(copy)) == (kind, "what to do")


def test_problem_body_is_rfc_9457() -> None:
    problem = problem_of(errors.NotAnImageError("Send a PNG."))
    assert problem_body(problem, "Send a PNG.", "7") == {
        "type": "urn:roadseg:not-an-image",
        "title": "Not a picture",
        "status": 415,
        "detail": "Send a PNG.",
        "request_id": "7",
    }
