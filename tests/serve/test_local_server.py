"""A server on this machine: its port, and its log."""

import socket
from typing import get_args

import pytest
from ray.serve.schema import LoggingConfig

from roadseg_serve.errors import PortInUseError
from roadseg_serve.local_server import check_port, is_held, logging_config
from roadseg_serve.settings import LogFormat

HOST = "127.0.0.1"


def test_a_port_that_another_program_listens_on_is_refused() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortInUseError, match="in use by another program"):
            check_port(HOST, port)
        assert is_held(HOST, port)
    check_port(HOST, port)
    assert not is_held(HOST, port)


@pytest.mark.parametrize("reuse", [0, 1])  # Ray Serve's replicas listen without
def test_a_port_stays_held_after_the_server_closed_connections(reuse: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection((HOST, port)) as client:
            connection, _ = listener.accept()
            connection.close()
            assert client.recv(1) == b""
    assert is_held(HOST, port)
    check_port(HOST, port)  # nobody listens there


@pytest.mark.parametrize("log_format", get_args(LogFormat))
def test_ray_accepts_the_logging_config(log_format: LogFormat) -> None:
    config = LoggingConfig(**logging_config(log_format))
    assert (config.encoding, config.enable_access_log) == (log_format.upper(), False)
