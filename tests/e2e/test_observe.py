"""`ci/serve --observe`: a Prometheus beside the server knows what it does, and nothing of either is left."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.uploads import WHOLE
from tests.server import ROOT, Server, StartServer
from tests.wire import wait_until

ANSWER_TIMEOUT_S = 120


@pytest.fixture(scope="module", autouse=True)
def prometheus() -> None:
    """The program, brought once; it is no part of the project."""
    subprocess.run([ROOT / "ci" / "prometheus"], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def observed(start_server: StartServer, red_artefact: Path) -> Iterator[Server]:
    with start_server("--model", str(red_artefact), "--observe") as server:
        yield server


def address_of(server: Server) -> str:
    wait_until(lambda: "Prometheus is at" in server.log.read_text())
    found = re.search(r"Prometheus is at http://localhost:(\d+)", server.log.read_text())
    assert found is not None
    return f"http://127.0.0.1:{found[1]}"


def ask(address: str, path: str, **query: str) -> Any:
    return httpx.get(f"{address}/api/v1/{path}", params=query, timeout=ANSWER_TIMEOUT_S).json()["data"]


def assert_nothing_left(server: Server, address: str) -> None:
    assert server.left_running() == []
    for port in (server.port, int(address.rpartition(":")[2])):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_prometheus_tells_of_an_upload_and_both_end(observed: Server) -> None:
    observed.wait_until_ready()
    address = address_of(observed)
    answer = httpx.post(f"{observed.url}/upload", files={"file": WHOLE}, timeout=ANSWER_TIMEOUT_S)
    assert answer.status_code == 200
    query = 'sum(ray_roadseg_stage_latency_ms_count{stage="encode"})'
    wait_until(lambda: [found["value"][1] for found in ask(address, "query", query=query)["result"]] == ["1"])
    assert ask(address, "rules")["groups"]  # those of the chart
    observed.ctrl_c()
    observed.ctrl_c()
    assert observed.wait_until_stopped() == 0
    assert "stopped" in observed.log.read_text()
    assert_nothing_left(observed, address)


@pytest.mark.parametrize("when", ["Prometheus is at", "starting"])
def test_a_signal_while_starting_ends_both(observed: Server, when: str) -> None:
    wait_until(lambda: when in observed.log.read_text())
    address = address_of(observed)
    observed.process.terminate()
    assert observed.wait_until_stopped() in (0, 143)  # by itself, or before it could be asked to
    assert_nothing_left(observed, address)


def test_a_server_that_does_not_start_takes_prometheus_along(start_server: StartServer) -> None:
    with start_server("--model", "/nowhere", "--observe") as server:
        assert server.wait_until_stopped() == 1
        assert server.log.read_text().count("error:") == 1
        assert_nothing_left(server, address_of(server))
