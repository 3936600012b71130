"""The chart's release under test: changed by helm, used as its users do, and asked how it is."""

import io
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
HOST, GATEWAY_HOST, INGRESS_PORT = "roadseg.test", "gateway.roadseg.test", 30080
NUM_WORKERS = 2  # serve.workers.minReplicas


def component(name: str) -> str:
    """The label selector of the pods of a part of the chart."""
    return f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={name}"


WORKERS, HEAD = component("serve-worker"), component("serve-head")


class Deployment:
    """The release.

    Args:
        keys: of the cluster that it is in.
        tag: of its images.
    """

    def __init__(self, keys: Keys, tag: str) -> None:
        self.keys = keys
        self.tag = tag
        image_HWC, _ = draw(Scene(cars=((3.1, 12.0), (-3.2, 18.0))))
        buffer = io.BytesIO()
        Image.fromarray(image_HWC).save(buffer, "JPEG", quality=92)
        self.picture = buffer.getvalue()

    def helm(self, verb: str, *more: str) -> None:
        """Install or upgrade it, with our images."""
        tags = [f"images.{name}.tag={self.tag}" for name in ("serve", "train")]
        words = [word for tag in tags for word in ("--set", tag)]
        # The autoscaler writes into the RayClusters that the chart made; what the chart says goes.
        force = ["--force-conflicts"] if verb == "upgrade" else []
        run("helm", verb, RELEASE, CHART, f"--namespace={NAMESPACE}", f"--values={VALUES}", *force, *words, *more)

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
        """Upload a picture; `key=None` sends no key, an empty one the right one."""
        headers = {"Host": host} | ({} if key is None else {"X-API-Key": key or self.keys.api})
        headers |= {"X-Request-ID": request_id} if request_id else {}
        try:
            return httpx.post(
                self._url, headers=headers, params=params, files={"file": picture or self.picture}, timeout=60
            )
        except httpx.TransportError as error:
            raise KubeError(f"no answer: {error!r}") from error

    def has_logged(self, word: str) -> bool:
        """Whether a word is in a log that Ray Serve keeps in a worker pod."""
        grep = f"grep --recursive --files-with-matches {word} /tmp/ray/session_latest/logs/serve || true"
        options = (f"--namespace={NAMESPACE}", "--container=ray-worker", "--", "bash", "-c", grep)
        ready = [pod["metadata"]["name"] for pod in pods(NAMESPACE, WORKERS) if is_ready(pod)]
        return any(kubectl("exec", pod, *options) for pod in ready)

    def expect_mask(self, answer: httpx.Response) -> None:
        """As a PNG, what the bundled model says of our picture."""
        mask_HW, expected_HW = np.asarray(Image.open(io.BytesIO(answer.content))), prepare.local_mask(self.picture)
        differing = float((mask_HW != expected_HW).mean())
        expect(
            differing < 0.001, f"{differing:.1%} of the mask's pixels differ from what the same model says elsewhere"
        )

    def load(self, num_clients: int = 2, pause_s: float = 0.2) -> Load:
        """Uploads all the time, for as long as the `with` lasts."""
        headers = {"Host": HOST, "X-API-Key": self.keys.api}
        return Load(f"{self._url}?format=png", self.picture, headers, num_clients=num_clients, pause_s=pause_s)

    def serves(self, name: str) -> bool:
        """Whether many answers in a row came from a model of this name, and the application is at rest."""
        answers = {self.upload().headers.get("X-Model-Name") for _ in range(20)}
        return answers == {name} and self.status() == "RUNNING"

    def _service(self) -> dict[str, Any]:
        status: dict[str, Any] = get(f"rayservice/{RELEASE}", f"--namespace={NAMESPACE}")["status"]
        return status

    def status(self) -> str:
        """Ray Serve's word for the state of the application."""
        return str(self._service()["activeServiceStatus"]["applicationStatuses"]["roadseg"]["status"])

    def active_cluster(self) -> str:
        """The name of the Ray cluster that serves."""
        return str(self._service()["activeServiceStatus"]["rayClusterName"])

    def wait_until_whole(self) -> None:
        """Until all workers run and the application too; a worker that got no replica is not ready, and need not be."""

        def whole() -> bool:
            running = [pod for pod in pods(NAMESPACE, WORKERS) if pod["status"]["phase"] == "Running"]
            return len(running) >= NUM_WORKERS and any(map(is_ready, running)) and self.status() == "RUNNING"

        wait_until("that all workers run", whole, READY_TIMEOUT_S)

    def wait_until_running(self) -> None:
        """Until the application is at rest."""
        wait_until("that the application runs", lambda: self.status() == "RUNNING", READY_TIMEOUT_S)
