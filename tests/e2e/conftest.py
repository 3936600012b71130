"""A server that several tests of a module share."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import Server, StartServer


@pytest.fixture(scope="module")
def red_server(start_server: StartServer, red_artefact: Path) -> Iterator[Server]:
    """A ready server whose road probability is red / 255."""
    with start_server("--model", str(red_artefact)) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="module")
def red(red_server: Server) -> Iterator[httpx.Client]:
    """A client of the red server."""
    with httpx.Client(base_url=red_server.url, timeout=60) as client:
        yield client
