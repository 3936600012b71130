"""A release: push image and chart to a real OCI registry, and find them there."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from tests.cluster.kube import KubeError, run, wait_until
from tests.cluster.prepare import ROOT
from tests.seaweed import free_ports

READY_TIMEOUT_S = 60
REPOSITORY = "vision/roadseg"


@contextmanager
def running_registry() -> Iterator[str]:
    """The address of an empty registry that serves HTTP on loopback."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        words = ["crane", "registry", "serve", "--address", f"127.0.0.1:{port}", "--disk", folder]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                wait_until("a registry", lambda: _answers(port), READY_TIMEOUT_S)
                yield f"127.0.0.1:{port}"
            finally:
                process.terminate()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/").is_success
    except httpx.TransportError:
        return False


def release_and_find() -> float:
    """Release the serve image and the chart, and find what the pods would pull; the seconds that pushing took.

    Raises:
        KubeError: a commit without its tag was released, or image or chart is missing.
    """
    with tempfile.TemporaryDirectory() as folder, running_registry() as address:
        checkout = Path(folder) / "roadseg"
        run("git", "clone", "--quiet", "--no-tags", ROOT, checkout)
        settings = ("PLAIN_HTTP=1", f"TOOLS={ROOT / '.tools'}")
        release = ("env", *settings, checkout / "ci/release", f"{address}/{REPOSITORY}", "serve", "chart")
        try:
            told = run(*release)
        except KubeError as refusal:
            if "git tag v" not in str(refusal):
                raise
        else:
            raise KubeError(f"a commit without a tag was not refused:\n{told}")

        version = yaml.safe_load((ROOT / "helm/roadseg/Chart.yaml").read_text())["appVersion"]
        run("git", "-C", checkout, "tag", f"v{version}")
        start_s = time.monotonic()
        run(*release)
        duration_s = time.monotonic() - start_s

        chart = f"oci://{address}/{REPOSITORY}/charts/roadseg"
        rendered = run("helm", "template", "roadseg", chart, "--version", version, "--plain-http", "--skip-tests")
        image = f"{address}/{REPOSITORY}/serve:{version}"
        if image not in rendered:
            raise KubeError(f"the chart does not name {image}")
        run("crane", "validate", "--insecure", "--remote", image)
        return duration_s
