"""The exceptions, and how HTTP clients see them."""

import pickle

import pytest

from roadseg_serve import errors
from roadseg_serve.errors import RequestError

KINDS = RequestError.__subclasses__()


def test_every_error_has_its_own_type() -> None:
    types = {kind.problem.type for kind in KINDS}
    assert len(types) == len(KINDS)
    assert all(name.startswith("urn:roadseg:") for name in types)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_client_sent_is_never_the_servers_fault(kind: type[RequestError]) -> None:
    ours = (errors.RequestTimeoutError, errors.ModelUnavailableError, errors.OverloadedError)
    assert 400 <= kind.problem.status < 500 or kind in ours


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind: type[RequestError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what to do")))  # noqa: S301 our own bytes
    assert (type(copy), str(copy)) == (kind, "what to do")
