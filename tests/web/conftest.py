"""A server that asks for a key, a browser beside it, and a picture to drop."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from docs.scenes import Scene, draw
from roadseg_serve.models.artefact import BUNDLED
from tests.conftest import BUNDLED_KEY
from tests.server import Server
from tests.web.browser import PROGRAMS, Browser, Chromium, find_program, start_chromium

KEY = BUNDLED_KEY
SERVED = BUNDLED["small"].replace("/", " ")  # as the pages write it


@pytest.fixture(scope="session")
def server(bundled_server: Server) -> Server:
    return bundled_server


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if find_program() is None:
        give_up = pytest.fail if "CI" in os.environ else pytest.skip
        give_up(f"none of {', '.join(PROGRAMS)} is installed")
    with start_chromium(tmp_path_factory.mktemp("browser")) as chromium:
        yield chromium


@pytest.fixture
def page(server: Server, chromium: Chromium) -> Iterator[Browser]:
    """The page in a tab of its own, which remembers nothing of another test."""
    with chromium.tab() as page:
        page.open(server.url)
        yield page
        assert page.faults == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    Image.fromarray(draw(Scene())[0]).save(path)
    return path
