"""`ci/serve --observe`: a Prometheus beside the server knows what it does, and nothing of either is left."""

import re
import socket
from pathlib import Path

import httpx
import pytest

from tests.prometheus import ask
from tests.server import Server, StartServer
from tests.uploads import WHOLE
from tests.wire import wait_until

pytestmark = pytest.mark.usefixtures("prometheus_program")

ANSWER_TIMEOUT_S = 120


def address_of(server: Server) -> str:
    wait_until(lambda: "Prometheus is at" in server.log.read_text())
    found = re.search(r"Prometheus is at http://localhost:(\d+)", server.log.read_text())
    assert found is not None
    return f"http://127.0.0.1:{found[1]}"


def assert_nothing_left(server: Server, address: str) -> None:
    assert server.left_running() == []
    for port in (server.port, int(address.rpartition(":")[2])):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


@pytest.mark.ends_server
def test_prometheus_tells_of_an_upload_and_both_end(bundled_server: Server, bundled_keys: Path) -> None:
    server, address = bundled_server, address_of(bundled_server)
    query = 'sum(ray_roadseg_stage_latency_ms_count{stage="encode"})'

    def num_uploads() -> int:
        return sum(int(found["value"][1]) for found in ask(address, "query", query=query)["result"])

    server.wait_until_quiet()
    before = server.metric("ray_roadseg_stage_latency_ms_count", stage="encode") or 0
    wait_until(lambda: num_uploads() == before)
    headers, files = {"X-API-Key": bundled_keys.read_text()}, {"file": WHOLE}
    answer = httpx.post(f"{server.url}/upload", files=files, headers=headers, timeout=ANSWER_TIMEOUT_S)
    assert answer.status_code == 200
    wait_until(lambda: num_uploads() == before + 1)
    assert ask(address, "rules")["groups"]  # those of the chart
    server.ctrl_c()
    server.ctrl_c()
    assert server.wait_until_stopped() == 0
    assert "stopped" in server.log.read_text()
    assert_nothing_left(server, address)


@pytest.mark.parametrize("when", ["Prometheus is at", "starting"])
def test_a_signal_while_starting_ends_both(start_server: StartServer, red_artefact: Path, when: str) -> None:
    with start_server("--model", str(red_artefact), "--observe") as server:
        wait_until(lambda: when in server.log.read_text())
        address = address_of(server)
        server.process.terminate()
        assert server.wait_until_stopped() in (0, 143)  # by itself, or before it could be asked to
        assert_nothing_left(server, address)


def test_a_server_that_does_not_start_takes_prometheus_along(start_server: StartServer) -> None:
    with start_server("--model", "/nowhere", "--observe") as server:
        assert server.wait_until_stopped() == 1
        assert server.log.read_text().count("error:") == 1
        assert_nothing_left(server, address_of(server))
