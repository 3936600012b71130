"""A Ray that takes trainings and Serve configs, as a cluster's head does."""

import os
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.seaweed import free_ports
from tests.server import free_port, processes, ray_metrics

PROGRAM = Path(__file__).with_name("ray_head.py")
DEADLINE_S = 240  # generous: the machine may be busy
NUM_STARTS = 3  # Ray gives each of its own processes 15 s to start, which a busy machine may not keep
BIRTHMARK = "ROADSEG_TEST_HEAD"  # every process of this Ray inherits it


@dataclass
class Head:
    """Ray, and how to speak to it.

    Attributes:
        config_port: that takes Serve configs.
        serve_port: where Serve answers.
        metrics_port: where Prometheus finds its metrics.
        env: leads a program on this machine to this Ray.
    """

    config_port: int
    serve_port: int
    metrics_port: int
    env: Mapping[str, str]
    birthmark: str

    @property
    def url(self) -> str:
        """Where Serve answers."""
        return f"http://127.0.0.1:{self.serve_port}"

    def put(self, model: str, **settings: Any) -> None:
        """Ask Serve for a version with these settings of the graph; what comes of it is in the status."""
        config = {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self.serve_port},
            "applications": [
                {
                    "name": "roadseg",
                    "import_path": "roadseg_serve.app:build",
                    "args": {"model": model, "form": "staged"} | settings,
                }
            ],
        }
        self._http("PUT", json=config)

    def serve(self, model: str, **settings: Any) -> None:
        """Ask Serve for a version and wait until it runs."""
        self.put(model, **settings)
        self.wait_for("RUNNING")

    def status(self) -> tuple[str, str]:
        """Of the application: the word, and everything that is said about it."""
        application = self._http("GET").json().get("applications", {}).get("roadseg", {})
        messages = [stage["message"] for stage in application.get("deployments", {}).values()]
        return application.get("status", ""), "\n".join([application.get("message", ""), *messages])

    def replicas(self) -> set[str]:
        """The ids of the replicas of all stages."""
        stages = self._http("GET").json()["applications"]["roadseg"]["deployments"].values()
        return {replica["replica_id"] for stage in stages for replica in stage["replicas"]}

    def wait_for(self, wanted: str, says: str = "") -> str:
        """Wait until the application has this status and its messages hold these words; returns the messages."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            status, text = self.status()
            if status == wanted and says in text:
                return text
            time.sleep(0.2)
        pytest.fail(f"not {wanted} {says!r} after {DEADLINE_S} s but {self.status()}")

    def stop_serving(self) -> None:
        """Remove the application and all of Serve."""
        self._http("DELETE")

    def pids(self, command: str) -> list[int]:
        """Of its processes whose command line has this in it."""
        return [pid for pid, line, _ in processes(BIRTHMARK, self.birthmark) if command in line]

    def _http(self, method: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"}
        url = f"http://127.0.0.1:{self.config_port}/api/serve/applications/"
        response = httpx.request(method, url, headers=headers, timeout=DEADLINE_S, **options)
        assert response.status_code == 200, response.text
        return response


@contextmanager
def start_head(folder: Path, env: Mapping[str, str]) -> Iterator[Head]:
    """Start Ray, and end it when the block is left.

    Args:
        folder: for its log and the files that its workers keep.
        env: what its processes find in their environment.
    """
    birthmark, config_port, serve_port = uuid.uuid4().hex, *free_ports(2)
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": str(DEADLINE_S),
        "RAY_prestart_worker_first_driver": "0",  # or it would start a process for each of its 16 CPUs
        "ROADSEG_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",  # so that every training adds up in the same order
        BIRTHMARK: birthmark,
    }
    settings |= ray_metrics(free_port(), free_port())
    log = folder / "log"
    for _ in range(NUM_STARTS):
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, PROGRAM, str(config_port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=os.environ | dict(env) | auth | settings,
                start_new_session=True,
                text=True,
            )
        try:
            assert process.stdout is not None
            match process.stdout.readline().split():
                case ["ready", address, metrics_port]:
                    ours = auth | {"RAY_ADDRESS": address}
                    yield Head(config_port, serve_port, int(metrics_port), ours, birthmark)
                    return
        finally:
            process.communicate(timeout=DEADLINE_S)  # it ends with its standard input
    pytest.fail(f"Ray does not start:\n{log.read_text()}")
