"""What rings of tests share: a model to compute in the head, a real S3 server, and servers as users run them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.red import write_red
from tests.seaweed import Seaweed
from tests.server import Server, StartServer

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The marker follows from the folder, so that nobody forgets it."""
    for item in items:
        if item.path.is_relative_to(HERE / "e2e") or item.path.is_relative_to(HERE / "web"):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def write_red_artefact() -> Callable[..., Path]:
    """Write the red model into a folder as a published version; keywords replace manifest fields."""
    return write_red


@pytest.fixture(scope="session")
def red_artefact(write_red_artefact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published version whose road probability is red / 255."""
    return write_red_artefact(tmp_path_factory.mktemp("store") / "red" / "1")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server with one bucket; the AWS variables of this process lead there."""
    server = Seaweed(tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
                patch.delenv(name, raising=False)
            for name, value in server.env.items():
                patch.setenv(name, value)
            yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> StartServer:
    """Start `ci/serve` with options and settings of the graph, and end it when the block is left."""

    @contextmanager
    def start(*options: str, settings: dict[str, Any] | None = None, port: int | None = None) -> Iterator[Server]:
        folder = tmp_path_factory.mktemp("server")
        if settings is not None:
            (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
            options = ("--config", str(folder / "settings.yaml"), *options)
        server = Server(folder / "log", *options, port=port)
        try:
            yield server
        finally:
            server.end()

    return start
