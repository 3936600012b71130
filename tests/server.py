"""A server started as a user starts it: `ci/serve` in a session of its own."""

import functools
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

ROOT = Path(__file__).parents[1]
READY_TIMEOUT_S = 240  # generous: the first start may install, and the machine may be busy
STOP_TIMEOUT_S = 60
METRICS_TIMEOUT_S = 60
COUNTS = ("_total", "_count")  # how Prometheus names them
BIRTHMARK = "ROADSEG_TEST_SERVER"  # every process of a server inherits it, orphans too

# How often Ray exports metrics: 10 s by default, which tests would only wait for. A gauge is exported if it was set
# since the last time, and the server sets its own every 5 s, so it cannot be less.
EXPORT_S = 6
FORGET_S = 2 * EXPORT_S  # after which Ray forgets a gauge that was not exported again


class Server:
    """One `ci/serve`.

    Attributes:
        port: it listens on.
        url: of its root.
        process: the command itself.
        log: what it prints.
        ray_ports: where Ray's autoscaler and dashboard export their own metrics.
    """

    def __init__(self, log: Path, *options: str, port: int | None = None, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.ray_ports = (free_port(), free_port())
        self._birthmark = uuid.uuid4().hex
        environment = os.environ | ray_metrics(*self.ray_ports) | {BIRTHMARK: self._birthmark} | dict(env or {})
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [ROOT / "ci" / "serve", "--port", str(self.port), *options],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
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
        """Command lines of all living processes that this server started."""
        return [command for command, _ in self._processes()]

    def session(self) -> Path:
        """The folder of this server's Ray."""
        (folder,) = {found for line in self.left_running() for found in re.findall(r"/\S+/session_[-_0-9]+", line)}
        return Path(folder)

    def metrics(self) -> list[Sample]:
        """All that Prometheus would find."""
        (port_file,) = self.session().glob("metrics_export_port_*")
        text = _client().get(f"http://127.0.0.1:{port_file.read_text()}/metrics").text
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of what Prometheus would find by this name and labels, or None if there is nothing."""
        return total(self.metrics(), name, **labels)

    def wait_until_quiet(self) -> None:
        """Wait until everything that was counted so far has been exported."""
        counts, since_s = self._counts(), time.monotonic()
        deadline_s = since_s + METRICS_TIMEOUT_S
        while time.monotonic() < since_s + EXPORT_S + 1:
            assert time.monotonic() < deadline_s, "somebody keeps asking this server"
            time.sleep(0.5)
            if (now := self._counts()) != counts:
                counts, since_s = now, time.monotonic()

    def _counts(self) -> dict[tuple[str, str], float]:
        return {
            (sample.name, str(sample.labels)): sample.value
            for sample in self.metrics()
            if sample.name.startswith(("ray_roadseg_", "ray_serve_num_http_")) and sample.name.endswith(COUNTS)
        }

    def memory_bytes(self) -> int:
        """Memory of all its processes that is not shared with others."""
        lines = [line for _, status in self._processes() for line in status.splitlines()]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    def _processes(self) -> list[tuple[str, str]]:
        return [(command, status) for _, command, status in processes(BIRTHMARK, self._birthmark)]

    def end(self) -> None:
        """Stop it whatever state it is in; nothing of it may be left."""
        if self.process.poll() is None:
            self.process.terminate()
            self.wait_until_stopped()
        assert self.left_running() == []


StartServer = Callable[..., AbstractContextManager[Server]]


def total(samples: Iterable[Sample], name: str, **labels: str) -> float | None:
    """The sum of all samples with this name and labels, or None if there are none."""
    values = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    return sum(values) if values else None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def ray_metrics(autoscaler_port: int, dashboard_port: int) -> dict[str, str]:
    """Environment of a Ray that exports often, and whose own metrics are not where another Ray's are."""
    return {
        "RAY_metrics_report_interval_ms": str(1000 * EXPORT_S),
        "AUTOSCALER_METRIC_PORT": str(autoscaler_port),
        "DASHBOARD_METRIC_PORT": str(dashboard_port),
    }


def processes(variable: str, value: str) -> list[tuple[int, str, str]]:
    """Process id, command line and /proc status of each living process with this environment variable."""
    mark = f"{variable}={value}".encode()
    living = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                living.append((int(folder.name), command, (folder / "status").read_text()))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return living


@functools.cache
def _client() -> httpx.Client:
    """One for all looks at metrics: it takes a while to make one."""
    return httpx.Client(timeout=METRICS_TIMEOUT_S)
