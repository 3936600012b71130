"""Start and stop as people do at a terminal: nothing is left behind, and mistakes get one clear line."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.server import Server, StartServer


def assert_nothing_left(server: Server) -> None:
    assert server.left_running() == []
    with pytest.raises(ConnectionRefusedError):  # nobody listens
        socket.create_connection(("127.0.0.1", server.port))


def test_ctrl_c_twice_stops_everything(start_server: StartServer, red_artefact: Path) -> None:
    with start_server("--model", str(red_artefact)) as server:
        server.wait_until_ready()
        assert f"curl -F file=@road.png http://localhost:{server.port}/upload" in server.log.read_text()
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert server.left_running()  # the way of looking works
        server.ctrl_c()
        time.sleep(0.5)
        server.ctrl_c()
        assert server.wait_until_stopped() == 0
        assert_nothing_left(server)


def test_sigterm_stops_everything(start_server: StartServer, red_artefact: Path) -> None:
    with start_server("--model", str(red_artefact)) as server:
        server.wait_until_ready()
        server.process.terminate()
        assert server.wait_until_stopped() == 0
        assert_nothing_left(server)


@pytest.mark.parametrize("after_s", [0.5, 2, 3.5])
@pytest.mark.parametrize("by", ["Ctrl-C", "SIGTERM"])
def test_a_signal_while_starting_stops_everything(
    start_server: StartServer, red_artefact: Path, by: str, after_s: float
) -> None:
    with start_server("--model", str(red_artefact)) as server:
        while "starting" not in server.log.read_text():
            time.sleep(0.1)
        time.sleep(after_s)
        stop = server.ctrl_c if by == "Ctrl-C" else server.process.terminate
        stop()
        assert server.wait_until_stopped() == 0
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
