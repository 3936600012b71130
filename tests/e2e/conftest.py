"""Two servers that most modules share, one of each form, and one Ray for every training and redeployment."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.head import Head, start_head
from tests.otlp import Collector, collect
from tests.seaweed import Seaweed
from tests.server import Server, StartServer, free_port

SENT_AFTER_S = 1  # the longest that a span waits before it is sent
MAX_UPLOAD_BYTES = 16_000_000  # a little less than the longest message that uvicorn takes


@dataclass(frozen=True)
class Shared:
    """A server, and the collector that receives its traces."""

    server: Server
    collector: Collector


@pytest.fixture(scope="session", params=["fused", "staged"])
def form(request: pytest.FixtureRequest) -> str:
    """All stages in the process that listens, or each on its own behind Ray Serve's proxy."""
    return str(request.param)


@pytest.fixture(scope="session")
def shared(form: str, start_server: StartServer, red_artefact: Path) -> Iterator[Shared]:
    """A server whose road probability is red / 255; it starts before anything listens for its traces."""
    scaled = {"autoscaling_config": {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 8}}
    settings = {"model": str(red_artefact), "form": form, "max_upload_bytes": MAX_UPLOAD_BYTES}
    if form == "staged":
        settings["predict"] = scaled  # as on a cluster
    port = free_port()
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": str(1000 * SENT_AFTER_S),
    }
    with start_server("--log-format", "json", "--trace", settings=settings, env=env) as server:
        server.wait_until_ready()
        with collect(port) as collector:
            yield Shared(server, collector)


@pytest.fixture(scope="session")
def server(shared: Shared) -> Server:
    return shared.server


@pytest.fixture(scope="session")
def collector(shared: Shared) -> Collector:
    return shared.collector


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def head(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A Ray of 16 CPUs, in name only, whose processes know the S3 server."""
    with start_head(tmp_path_factory.mktemp("head"), seaweed.env) as head:
        yield head
