"""A server that asks for a key, a browser beside it, and a picture to drop."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from docs.scenes import Scene, draw
from roadseg_serve.models.artefact import BUNDLED
from tests.server import Server, StartServer
from tests.web.browser import PROGRAMS, Browser, browse, find_program

KEY = "the-key-of-june"
SERVED = BUNDLED["small"].replace("/", " ")  # as the pages write it


@pytest.fixture(scope="module")
def server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The bundled model, for who has a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    with start_server(settings={"form": "fused", "gate": {"api_keys_file": str(keys)}}) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def page(server: Server, tmp_path: Path) -> Iterator[Browser]:
    if find_program() is None:
        give_up = pytest.fail if "CI" in os.environ else pytest.skip
        give_up(f"none of {', '.join(PROGRAMS)} is installed")
    with browse(tmp_path / "browser") as page:
        page.open(server.url)
        yield page
        assert page.faults == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    Image.fromarray(draw(Scene())[0]).save(path)
    return path
