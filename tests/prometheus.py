"""A real Prometheus that scrapes what a test names, and what can be asked of one."""

import functools
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.server import ROOT, free_port

READY_TIMEOUT_S = 60
SCRAPE_EVERY_S = 2
DEV_PROMETHEUS = ROOT / "k8s" / "dev-prometheus.yaml"


def scrape_config() -> dict[str, Any]:
    """The one of k8s/dev-prometheus.yaml."""
    objects = list(yaml.safe_load_all(DEV_PROMETHEUS.read_text()))
    (config,) = (item for item in objects if item["kind"] == "ConfigMap")
    (scrape,) = yaml.safe_load(config["data"]["prometheus.yml"])["scrape_configs"]
    return dict(scrape)


class Prometheus:
    """One Prometheus, started.

    Attributes:
        url: of its root.
    """

    def __init__(self, folder: Path, targets: Mapping[str, Mapping[str, str]], rules: str) -> None:
        """Start it.

        Args:
            folder: for all it writes.
            targets: labels by host:port.
            rules: as YAML.
        """
        scrape = scrape_config()
        config = {
            "global": {"scrape_interval": f"{SCRAPE_EVERY_S}s", "evaluation_interval": f"{SCRAPE_EVERY_S}s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": "roadseg",
                    "static_configs": [{"targets": [t], "labels": dict(labels)} for t, labels in targets.items()],
                    "metric_relabel_configs": scrape["metric_relabel_configs"],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "rules.yaml").write_text(rules)
        found = subprocess.run([ROOT / "ci/prometheus"], check=False, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    f"{found.stdout.strip()}/prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready():
            assert self._process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline_s, (folder / "log").read_text()
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready").is_success
        except httpx.TransportError:
            return False

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(READY_TIMEOUT_S)


def ask(url: str, path: str, **parameters: str | float) -> Any:
    """What /api/v1/PATH of a Prometheus answers."""
    answer = _client().get(f"{url}/api/v1/{path}", params=parameters)
    body = json.loads(answer.content)
    assert body["status"] == "success", f"{parameters}: {body}"
    return body["data"]


@functools.cache
def _client() -> httpx.Client:
    """One for all questions: it takes a while to make one, and there are hundreds."""
    return httpx.Client(timeout=60)
