"""Start and stop as people do at a terminal: nothing is left behind, and mistakes get one clear line."""

import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.otlp import Collector
from tests.server import Server, StartServer
from tests.uploads import WHOLE
from tests.wire import wait_until


def assert_nothing_left(server: Server) -> None:
    assert server.left_running() == []
    with pytest.raises(ConnectionRefusedError):  # nobody listens
        socket.create_connection(("127.0.0.1", server.port))


@pytest.mark.ends_server
def test_a_server_stops_after_all_it_has_done(server: Server, collector: Collector, form: str) -> None:
    """By Ctrl-C twice or by SIGTERM, while a stream is open and nothing takes its traces any more."""
    assert f"curl -F file=@road.png http://localhost:{server.port}/upload" in server.log.read_text()
    assert server.left_running()  # the way of looking works
    collector.end()
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for _ in range(20):
            assert client.post("/upload", files={"file": WHOLE}).status_code == 200
    with connect(f"ws://127.0.0.1:{server.port}/stream") as stream:
        stream.send(WHOLE)
        assert stream.recv(60)
        assert stream.recv(60)
        stream.send("next")
        if form == "fused":
            server.ctrl_c()
        else:
            server.process.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(60)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, bool(closed.value.rcvd.reason)) == (1001, True)
    if form == "fused" and server.process.poll() is None:
        server.ctrl_c()
    assert server.wait_until_stopped() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text()
    assert "ERROR" not in server.log.read_text()
    assert_nothing_left(server)


@pytest.mark.parametrize(("by", "when"), [("Ctrl-C", "gcs_server"), ("SIGTERM", "ServeController")])
def test_a_signal_while_starting_stops_everything(
    start_server: StartServer, red_artefact: Path, by: str, when: str
) -> None:
    """While Ray starts, and while Serve does."""
    with start_server("--model", str(red_artefact)) as server:
        wait_until(lambda: any(when in command for command in server.left_running()))
        stop = server.ctrl_c if by == "Ctrl-C" else server.process.terminate
        stop()
        assert server.wait_until_stopped() == 0
        assert "roadseg is ready at" not in server.log.read_text()
        assert_nothing_left(server)


def test_a_used_port_is_one_clear_line(start_server: StartServer, red_artefact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with start_server("--model", str(red_artefact), port=port) as server:
            assert server.wait_until_stopped() == 1
            lines = [line for line in server.log.read_text().splitlines() if "installing" not in line]
            assert len(lines) == 1
            assert f"port {port} is in use" in lines[0]
            assert "--port" in lines[0]


def test_a_damaged_model_is_one_clear_line(
    start_server: StartServer, write_red_artefact: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_red_artefact(tmp_path / "1")
    (folder / "model.onnx").write_bytes(b"damaged")
    with start_server("--model", str(folder)) as server:
        assert server.wait_until_stopped() == 1
        text = server.log.read_text()
        assert text.count("error:") == 1
        assert "Traceback" not in text
        assert "model.onnx" in text
        assert server.left_running() == []
