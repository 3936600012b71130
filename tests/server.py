"""A server started as a user starts it: `ci/serve` in a session of its own."""

import os
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[1]
READY_TIMEOUT_S = 240  # generous: the first start may install, and the machine may be busy
STOP_TIMEOUT_S = 60
METRICS_TIMEOUT_S = 60
BIRTHMARK = "ROADSEG_TEST_SERVER"  # every process of a server inherits it, orphans too


class Server:
    """One `ci/serve`.

    Attributes:
        port: it listens on.
        url: of its root.
        process: the command itself.
        log: what it prints.
    """

    def __init__(self, log: Path, *options: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._birthmark = uuid.uuid4().hex
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [ROOT / "ci" / "serve", "--port", str(self.port), *options],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | {BIRTHMARK: self._birthmark},
                start_new_session=True,  # so that Ctrl-C can be sent to all of it, as a terminal does
            )

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            if "roadseg is ready at" in self.log.read_text():
                return
            time.sleep(0.1)
        pytest.fail(f"not ready after {READY_TIMEOUT_S} s:\n{self.log.read_text()}")

    def ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_until_stopped(self) -> int:
        return self.process.wait(STOP_TIMEOUT_S)

    def left_running(self) -> list[str]:
        """Command lines of all living processes that this server gave birth to."""
        return [command for command, _ in self._processes()]

    def pids(self, command: str) -> list[int]:
        """Of its living processes whose command line has this in it."""
        found = [status for line, status in self._processes() if command in line]
        return [int(status.partition("\nPid:")[2].split()[0]) for status in found]

    def session(self) -> Path:
        """The folder of this server's Ray."""
        (folder,) = {found for line in self.left_running() for found in re.findall(r"/\S+/session_[-_0-9]+", line)}
        return Path(folder)

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of all samples that Prometheus would find by this name and labels, or None where there is none."""
        (port_file,) = self.session().glob("metrics_export_port_*")
        text = httpx.get(f"http://127.0.0.1:{port_file.read_text()}/metrics", timeout=METRICS_TIMEOUT_S).text
        values = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None

    def memory_bytes(self) -> int:
        """Memory of all its processes that is not shared with others."""
        lines = [line for _, status in self._processes() for line in status.splitlines()]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    def _processes(self) -> list[tuple[str, str]]:
        """Command line and /proc status of each living process."""
        mark = f"{BIRTHMARK}={self._birthmark}".encode()
        living = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    living.append((command, (folder / "status").read_text()))
            except OSError:  # it ended meanwhile, or is another user's
                continue
        return living

    def end(self) -> None:
        """Stop it whatever state it is in."""
        if self.process.poll() is None:
            self.process.terminate()
            self.wait_until_stopped()


StartServer = Callable[..., AbstractContextManager[Server]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
