"""The Helm release under test: helm changes it, uploads use it, kubectl tells its state."""

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from docs.scenes import Scene, draw
from tests.cluster import kube, prepare
from tests.cluster.kube import KubeError, expect, get, is_ready, kubectl, pods, run, wait_until
from tests.cluster.load import Load
from tests.cluster.prepare import NAMESPACE, READY_TIMEOUT_S, ROOT, Keys

RELEASE = "roadseg"
CHART = ROOT / "helm/roadseg"
VALUES = ROOT / "tests/cluster/values.yaml"
VALUES_ALL = ROOT / "tests/cluster/values-all.yaml"
BUNDLED = "road-small"  # the name of the model that the chart serves by default
HOST, GATEWAY_HOST, INGRESS_PORT = "roadseg.test", "gateway.roadseg.test", 30080
NUM_WORKERS = 2  # serve.workers.minReplicas


def component(name: str) -> str:
    """The label selector for the pods of one component of the chart."""
    return f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={name}"


WORKERS, HEAD = component("serve-worker"), component("serve-head")


class Deployment:
    """The release.

    Args:
        keys: of its cluster.
        tag: of its images.
        everything: whether it has a gateway, training and a head that may be lost.
    """

    def __init__(self, keys: Keys, tag: str, everything: bool) -> None:
        self.keys = keys
        self.tag = tag
        self._values = [VALUES, VALUES_ALL] if everything else [VALUES]
        image_HWC, _ = draw(Scene(cars=((3.1, 12.0), (-3.2, 18.0))))
        buffer = io.BytesIO()
        Image.fromarray(image_HWC).save(buffer, "JPEG", quality=92)
        self.picture = buffer.getvalue()
        self._masks = {BUNDLED: prepare.local_mask(self.picture)}

    def add_model(self, name: str, folder: Path) -> None:
        """Let masks come from another model, a copy of which is in a folder."""
        self._masks[name] = prepare.local_mask(self.picture, str(folder))

    def helm(self, verb: str, *more: str) -> None:
        """Install or upgrade it with our images."""
        values = [f"--values={path}" for path in self._values]
        tags = [f"images.{name}.tag={self.tag}" for name in ("serve", "train")]
        words = [word for tag in tags for word in ("--set", tag)]
        # The autoscaler also writes to the RayClusters of the chart; the chart wins.
        force = ["--force-conflicts"] if verb == "upgrade" else []
        run("helm", verb, RELEASE, CHART, f"--namespace={NAMESPACE}", *values, *force, *words, *more)

    @property
    def _url(self) -> str:
        return f"http://{kube.node_address()}:{INGRESS_PORT}/upload"

    def upload(
        self,
        key: str | None = "",
        params: dict[str, str] | None = None,
        picture: bytes | None = None,
        host: str = HOST,
        request_id: str | None = None,
    ) -> httpx.Response:
        """Upload a picture; `key=None` sends no key, an empty one sends the right key."""
        headers = {"Host": host} | ({} if key is None else {"X-API-Key": key or self.keys.api})
        headers |= {"X-Request-ID": request_id} if request_id else {}
        try:
            return httpx.post(
                self._url, headers=headers, params=params, files={"file": picture or self.picture}, timeout=60
            )
        except httpx.TransportError as error:
            raise KubeError(f"no response: {error!r}") from error

    def has_logged(self, word: str) -> bool:
        """Whether a word is in a log of Ray Serve in a worker pod."""
        grep = f"grep --recursive --files-with-matches {word} /tmp/ray/session_latest/logs/serve || true"
        options = (f"--namespace={NAMESPACE}", "--container=ray-worker", "--", "bash", "-c", grep)
        ready = [pod["metadata"]["name"] for pod in pods(NAMESPACE, WORKERS) if is_ready(pod)]
        return any(kubectl("exec", pod, *options) for pod in ready)

    def expect_mask(self, mask: bytes, model: str = BUNDLED) -> None:
        """Compare a mask of our picture, as PNG, with that of the same model outside the cluster.

        Raises:
            KubeError: they differ, or no such model was deployed.
        """
        expect(model in self._masks, f"a mask came from {model}, but only {sorted(self._masks)} were deployed")
        differing = float((np.asarray(Image.open(io.BytesIO(mask))) != self._masks[model]).mean())
        expect(differing < 0.001, f"{differing:.1%} of a mask differ from what {model} returns outside the cluster")

    def expect_no_failure(self, what: str, load: Load) -> None:
        """Expect that every request during something got the mask of the model that it names.

        Raises:
            KubeError: a request failed or got a wrong mask.
        """
        expect(not load.failures, f"{what}: {load}")
        for model, masks in load.masks.items():
            for mask in masks:
                self.expect_mask(mask, model)

    def load(self, num_clients: int = 2, pause_s: float = 0.2) -> Load:
        """Uploads that go on as long as the `with` block."""
        headers = {"Host": HOST, "X-API-Key": self.keys.api}
        return Load(f"{self._url}?format=png", self.picture, headers, num_clients=num_clients, pause_s=pause_s)

    def serves(self, name: str) -> bool:
        """Whether many responses in a row came from the model of this name, and the application is settled."""
        answers = {self.upload().headers.get("X-Model-Name") for _ in range(20)}
        return answers == {name} and self.status() == "RUNNING"

    def _service(self) -> dict[str, Any]:
        status: dict[str, Any] = get(f"rayservice/{RELEASE}", f"--namespace={NAMESPACE}")["status"]
        return status

    def status(self) -> str:
        """The state of the application, as Ray Serve names it."""
        return str(self._service()["activeServiceStatus"]["applicationStatuses"]["roadseg"]["status"])

    def active_cluster(self) -> str:
        """The name of the Ray cluster that serves."""
        return str(self._service()["activeServiceStatus"]["rayClusterName"])

    def wait_until_whole(self) -> None:
        """Wait until the application and all workers run; a worker without a replica is not ready and need not be."""

        def whole() -> bool:
            running = [pod for pod in pods(NAMESPACE, WORKERS) if pod["status"]["phase"] == "Running"]
            return len(running) >= NUM_WORKERS and any(map(is_ready, running)) and self.status() == "RUNNING"

        wait_until("all workers running", whole, READY_TIMEOUT_S)

    def wait_until_running(self) -> None:
        """Wait until the application runs."""
        wait_until("the application running", lambda: self.status() == "RUNNING", READY_TIMEOUT_S)
