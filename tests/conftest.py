"""What rings of tests share: a model to compute in the head, a real S3 server, and servers as users run them."""

import ctypes
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.red import write_red
from tests.seaweed import Seaweed
from tests.server import ROOT, Server, StartServer

HERE = Path(__file__).parent
BUNDLED_KEY = "the-key-of-june"


@pytest.hookimpl(trylast=True)  # pytest's own order comes first
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by folder, and put those side by side that share a server or a Ray, so that one runs at a time."""
    for item in items:
        if item.path.is_relative_to(HERE / "e2e") or item.path.is_relative_to(HERE / "web"):
            item.add_marker(pytest.mark.e2e)
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[int, bool, bool]:
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else []
    form = item.callspec.params["form"] if isinstance(item, pytest.Function) and "shared" in fixtures else None
    groups = ["bundled_server" in fixtures, form == "fused", form == "staged", form is None and "head" in fixtures]
    group = groups.index(True) + 1 if any(groups) else 0
    return group, item.get_closest_marker("ends_server") is not None, "head" in fixtures


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before the fixtures, some of which start processes."""
    turn_off_the_signal_stack()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """After the fixtures, some of which have destroyed engines."""
    turn_off_the_signal_stack()


def turn_off_the_signal_stack() -> None:
    """Let signals of this thread use its ordinary stack.

    OpenVINO gives a thread that creates an engine another signal stack, and puts the one before back when the engine is
    destroyed. After two engines that end in the order in which they began, that is memory that is gone, and the next
    signal with a handler, such as the SIGCHLD of a loader, kills the process without a word.
    """
    turned_off = struct.pack("@PiN", 0, 2, 0)  # a stack_t: address, SS_DISABLE, size
    assert ctypes.CDLL(None, use_errno=True).sigaltstack(turned_off, None) == 0


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
    """Start `ci/serve` with options, settings of the graph and environment variables; it ends with the block."""

    @contextmanager
    def start(
        *options: str,
        settings: dict[str, Any] | None = None,
        port: int | None = None,
        env: dict[str, str] | None = None,
    ) -> Iterator[Server]:
        folder = tmp_path_factory.mktemp("server")
        if settings is not None:
            (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
            options = ("--config", str(folder / "settings.yaml"), *options)
        server = Server(folder / "log", *options, port=port, env=env)
        try:
            yield server
        finally:
            server.end()

    return start


@pytest.fixture(scope="session")
def bundled_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the API key of `bundled_server`."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(BUNDLED_KEY)
    return keys


@pytest.fixture(scope="session")
def prometheus_program() -> None:
    """The program that `ci/serve --observe` starts; brought once, it is no part of the project."""
    subprocess.run([ROOT / "ci" / "prometheus"], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def bundled_server(start_server: StartServer, bundled_keys: Path, prometheus_program: None) -> Iterator[Server]:
    """The smaller bundled model behind an API key, with a Prometheus beside it."""
    assert prometheus_program is None
    settings = {"form": "fused", "gate": {"api_keys_file": str(bundled_keys)}}
    with start_server("--observe", settings=settings) as server:
        server.wait_until_ready()
        yield server
