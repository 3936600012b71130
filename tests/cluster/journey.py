"""What a team does with roadseg on a cluster, step by step, with real servers and under real load."""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from docs.scenes import Scene, draw
from tests.cluster import kube, prepare, release
from tests.cluster.kube import KubeError, get, is_ready, kubectl, pods, run, wait_until
from tests.cluster.load import Load
from tests.cluster.prepare import BUCKET, MONITORING_NAMESPACE, NAMESPACE, ROOT, Keys
from tests.cluster.queries import NO_FAILURE, NO_GPU, every_query

RELEASE = "roadseg"
CHART = ROOT / "helm/roadseg"
VALUES = Path(__file__).with_name("values.yaml")
HOST, GATEWAY_HOST, INGRESS_PORT = "roadseg.test", "gateway.roadseg.test", 30080
WORKERS, HEAD, TRAIN_WORKERS = (
    f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component={component}"
    for component in ("serve-worker", "serve-head", "train-worker")
)
TRAINED = f"s3://{BUCKET}/models/road-cluster/1"
NUM_WORKERS = 2  # serve.workers.minReplicas
READY_TIMEOUT_S = 600  # generous: the machine may be small and busy
LOOK_BACK_S = 3600.0  # to before the load and the training
CALM_S = 5.0  # constant load before and after what is done to the cluster


class Journey:
    """One release, from its installation to its removal.

    Attributes:
        figures: what was measured, by what it is called.
    """

    def __init__(self, tag: str) -> None:
        self.keys = Keys.of_cluster()
        self.tag = tag
        self.figures: dict[str, Any] = {}
        image_HWC, _ = draw(Scene(cars=((3.1, 12.0), (-3.2, 18.0))))
        buffer = io.BytesIO()
        Image.fromarray(image_HWC).save(buffer, "JPEG", quality=92)
        self.picture = buffer.getvalue()

    @property
    def steps(self) -> list[Callable[[], None]]:
        """In their order; each leaves the release serving, but for the last."""
        return [
            self.build_images,
            self.release,
            self.install_what_is_needed,
            self.install_the_chart,
            self.test_the_chart,
            self.upload_through_the_ingress,
            self.upload_through_the_gateway,
            self.keep_strangers_out,
            self.scale_up_and_down,  # before a change of the model leaves more pods than are needed, for a while
            self.train_on_two_workers,
            self.train_as_declared,
            self.change_the_model,
            self.change_it_back,
            self.lose_a_worker,
            self.lose_the_head,
            self.find_every_figure,
            self.change_the_image,
            self.uninstall,
        ]

    # Installing

    def build_images(self) -> None:
        with tempfile.TemporaryDirectory(prefix="roadseg-images-") as folder:  # .ci/run removes one that is left
            sizes = prepare.load_images(Path(folder), self.tag, "serve", "train")
            self.figures["images"] = sizes.strip().splitlines()
            if not kubectl("config", "current-context").startswith("kind-"):
                prepare.load_helper_images(Path(folder))

    def release(self) -> None:
        self.figures["seconds of a release of the serve image and the chart"] = release.release_and_find()

    def install_what_is_needed(self) -> None:
        prepare.install_operator()
        prepare.install_services(self.keys)
        prepare.install_prometheus(RELEASE)
        prepare.put_dataset(self.keys)

    def install_the_chart(self) -> None:
        start_s = time.monotonic()
        self._helm("install")
        wait_until("the first mask", lambda: self._upload().status_code == 200, READY_TIMEOUT_S)
        self.figures["seconds from helm install to the first mask"] = time.monotonic() - start_s
        self._wait_until_running()

    def test_the_chart(self) -> None:
        run("helm", "test", RELEASE, f"--namespace={NAMESPACE}", "--logs")

    def upload_through_the_ingress(self) -> None:
        self._expect_mask(self._upload(params={"format": "png"}))
        _check(self._upload(key="wrong").status_code == 401, "a wrong key was let in")
        _check(self._upload(key=None).status_code == 401, "no key was let in")
        _check(self._upload(picture=b"no picture").status_code == 415, "what is no picture was taken for one")

    def upload_through_the_gateway(self) -> None:
        wait_until("the gateway's route", lambda: self._upload(host=GATEWAY_HOST).status_code != 404, READY_TIMEOUT_S)
        self._expect_mask(self._upload(host=GATEWAY_HOST, params={"format": "png"}))

    def keep_strangers_out(self) -> None:
        """What a pod of another namespace reaches of ours: the uploads, and nothing where code could be run."""
        (head,), workers = pods(NAMESPACE, HEAD), pods(NAMESPACE, WORKERS)
        head_ip, worker_ip = head["status"]["podIP"], workers[0]["status"]["podIP"]
        closed = [f"{head_ip}/{port}" for port in (6379, 8265, 10001, 8080, 44217, 44227)]
        closed += [f"{worker_ip}/{port}" for port in (52365, 8080, 9101)]
        uploads = f"{worker_ip}/8000"
        reached = kube.reached_by_a_stranger(f"roadseg/serve:{self.tag}", uploads, closed)
        _check(reached == [uploads], f"of {uploads}, and not of {closed}, a stranger reaches {reached}")

    # Training

    def train_on_two_workers(self) -> None:
        places = {"data": f"s3://{BUCKET}/CamVid", "run": f"s3://{BUCKET}/runs/first", "store": f"s3://{BUCKET}/models"}
        fit = f"roadseg-train fit --data {places['data']} --run {places['run']} --preset tiny --steps 120 --workers 2"
        start_s = time.monotonic()
        with kube.forwarded(NAMESPACE, f"{RELEASE}-train-head-svc", 8265) as port:
            with self._submit(port, f"{fit} --cpus-per-worker 1 --checkpoint-every 20") as job:
                wait_until(
                    "a checkpoint, or the end of the job",
                    lambda: job.poll() is not None or self._has("runs/first/checkpoint_0000040"),
                    READY_TIMEOUT_S,
                )
                if job.poll() is not None:
                    _finish(job)
                victim = pods(NAMESPACE, TRAIN_WORKERS)[0]["metadata"]["name"]
                kubectl("delete", "pod", victim, f"--namespace={NAMESPACE}", "--grace-period=0", "--force")
                told = _finish(job)
            _check("step 120" in told or self._has("runs/first/summary.json"), f"the run did not end:\n{told}")
            evaluate = f"roadseg-train evaluate --run {places['run']} --robustness-frames 0"
            metrics = f"{places['run']}/evaluation/camvid-heldout/metrics.json"
            publish = (
                f"roadseg-train publish --run {places['run']} --store {places['store']} --name road-cluster --version 1"
            )
            for words in (evaluate, f"{publish} --evaluation {metrics}"):
                with self._submit(port, words) as job:
                    _finish(job)
        _check(self._has("models/road-cluster/1/manifest.json"), "there is no artefact")
        self.figures["seconds of a training on two workers that lost one of them"] = time.monotonic() - start_s

    def train_as_declared(self) -> None:
        """A RayJob: a cluster of its own that comes, trains and goes; its worker's pod is told to go in the middle."""
        places = f"--data s3://{BUCKET}/CamVid --run s3://{BUCKET}/runs/declared"
        args = f"{places} --preset tiny --steps 300 --checkpoint-every 300 --workers 1 --cpus-per-worker 1".split()
        job = {"enabled": True, "name": "declared", "args": args, "ttlSecondsAfterFinished": 0}
        name = f"{RELEASE}-declared"

        def told() -> str:
            return kubectl("logs", f"job/{name}", f"--namespace={NAMESPACE}", "--all-containers")

        def status() -> dict[str, Any]:
            found: dict[str, Any] = get(f"rayjob/{name}", f"--namespace={NAMESPACE}")["status"]
            return found

        def has_ended() -> bool:
            return status()["jobDeploymentStatus"] in ("Complete", "Failed")

        start_s = time.monotonic()
        self._helm("upgrade", "--set-json", f"training.job={json.dumps(job)}")
        wait_until("some steps", lambda: has_ended() or re.search(r"step [0-9]+/300", told()), READY_TIMEOUT_S)
        _check(not has_ended(), f"the job ended too early:\n{told()[-4000:]}")
        ours = f"ray.io/cluster={status()['rayClusterName']}"
        (worker,) = pods(NAMESPACE, f"{ours},ray.io/node-type=worker")
        kubectl("delete", "pod", worker["metadata"]["name"], f"--namespace={NAMESPACE}", "--wait=false")
        wait_until("what it saves before", lambda: self._has("runs/declared/checkpoint_"), READY_TIMEOUT_S)
        _check(not has_ended(), "the job ended before it saved")
        wait_until("the end of the job", has_ended, READY_TIMEOUT_S)
        _check(status()["jobStatus"] == "SUCCEEDED", f"the job ended as {status()}")
        _check(told().count(" step 1/300:") == 1, f"the training began anew:\n{told()[-4000:]}")
        self.figures["seconds of a declared training whose pod had to go"] = time.monotonic() - start_s
        wait_until("the end of the job's cluster", lambda: not pods(NAMESPACE, ours), READY_TIMEOUT_S)

    def _submit(self, port: int, entrypoint: str) -> "subprocess.Popen[str]":
        words = [Path(sys.executable).with_name("ray"), "job", "submit", "--address", f"http://127.0.0.1:{port}", "--"]
        return subprocess.Popen(
            [*map(str, words), *entrypoint.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.keys.ray},
        )

    def _has(self, key: str) -> bool:
        with kube.forwarded(NAMESPACE, "seaweedfs", 8333) as port:
            found = prepare.s3_client(self.keys, port).list_objects_v2(Bucket=BUCKET, Prefix=key, MaxKeys=1)
        return bool(found.get("Contents"))

    # Changes under constant load

    def change_the_model(self) -> None:
        with self._load() as load:
            time.sleep(CALM_S)
            start_s = time.monotonic()
            self._helm("upgrade", "--set", f"app.model={TRAINED}")
            wait_until("the new version alone", lambda: self._serves("road-cluster"), READY_TIMEOUT_S)
            self.figures["seconds of a change of the model"] = time.monotonic() - start_s
            time.sleep(CALM_S)
        self._expect_no_failure("a change of the model", load)

    def change_it_back(self) -> None:
        with self._load() as load:
            time.sleep(CALM_S)
            run("helm", "rollback", RELEASE, f"--namespace={NAMESPACE}", "--force-conflicts")
            wait_until("the old version alone", lambda: self._serves("road-small"), READY_TIMEOUT_S)
            time.sleep(CALM_S)
        self._expect_no_failure("the way back", load)

    def change_the_image(self) -> None:
        with tempfile.TemporaryDirectory(prefix="roadseg-images-") as folder:
            prepare.load_images(Path(folder), f"{self.tag}-next", "serve")
        before = self._active_cluster()
        with self._load() as load:
            time.sleep(CALM_S)
            start_s = time.monotonic()
            self._helm("upgrade", "--set", f"images.serve.tag={self.tag}-next")
            wait_until("a new cluster", lambda: self._active_cluster() != before, READY_TIMEOUT_S)
            self.figures["seconds of a change of the image"] = time.monotonic() - start_s
            gone = f"ray.io/cluster={before}"
            wait_until("the end of the old cluster", lambda: not pods(NAMESPACE, gone), READY_TIMEOUT_S)
            time.sleep(CALM_S)
        self._expect_no_failure("a change of the image", load)

    def scale_up_and_down(self) -> None:
        before = {pod["metadata"]["name"] for pod in pods(NAMESPACE, WORKERS)}

        def added() -> list[dict[str, Any]]:
            return [pod for pod in pods(NAMESPACE, WORKERS) if pod["metadata"]["name"] not in before]

        with self._load(num_clients=12, pause_s=0) as load:
            first_pod_s = wait_until("another worker pod", added, READY_TIMEOUT_S)
            ready_s = wait_until("that it serves", lambda: any(map(is_ready, added())), READY_TIMEOUT_S)
            self.figures["seconds from load to the first new pod, and to its readiness"] = [
                first_pod_s,
                first_pod_s + ready_s,
            ]
        self._expect_no_failure("scaling up", load)
        with self._load() as load:
            down_s = wait_until("that the pods go", lambda: not added(), READY_TIMEOUT_S)
            self.figures["seconds from idleness to the last pod's end"] = down_s
        self._expect_no_failure("scaling down", load)

    # Losses

    def lose_a_worker(self) -> None:
        self._wait_until_whole()
        victim = next(pod["metadata"]["name"] for pod in pods(NAMESPACE, WORKERS) if is_ready(pod))
        with self._load() as load:
            time.sleep(CALM_S)
            kubectl("delete", "pod", victim, f"--namespace={NAMESPACE}")
            self._wait_until_whole()
            time.sleep(CALM_S)
        self._expect_no_failure("the loss of a worker pod", load)

    def lose_the_head(self) -> None:
        """With fault tolerance of the GCS: the workers serve on while the head is replaced."""
        (before,) = pods(NAMESPACE, HEAD)
        with self._load() as load:
            time.sleep(CALM_S)
            start_s = time.monotonic()
            kubectl(
                "delete", "pod", before["metadata"]["name"], f"--namespace={NAMESPACE}", "--grace-period=0", "--force"
            )

            def replaced() -> bool:
                heads = pods(NAMESPACE, HEAD)
                return any(head["metadata"]["uid"] != before["metadata"]["uid"] and is_ready(head) for head in heads)

            wait_until("another head", replaced, READY_TIMEOUT_S)
            self.figures["seconds until another head is ready"] = time.monotonic() - start_s
            self._wait_until_running()
            time.sleep(CALM_S)
        self._expect_no_failure("the loss of the head", load)

    # Looking at it

    def find_every_figure(self) -> None:
        """After all that makes them: what dashboards and alerts ask of Prometheus is there."""
        with kube.forwarded(MONITORING_NAMESPACE, "prometheus", 9090) as port:
            missing = every_query(
                f"http://127.0.0.1:{port}", NAMESPACE, RELEASE, may_be_empty=NO_GPU | NO_FAILURE, over_s=LOOK_BACK_S
            )
        _check(not missing, "Prometheus does not know all that is asked of it:\n" + "\n".join(missing))

    def uninstall(self) -> None:
        # First, as docs/operations.md says: KubeRay clears Redis by a job that needs the release's service account.
        kubectl("delete", f"rayservice/{RELEASE}", f"--namespace={NAMESPACE}", "--wait", "--timeout=5m")
        run("helm", "uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait")
        kinds = (
            "rayservices,rayclusters,rayjobs,services,ingresses,networkpolicies,poddisruptionbudgets,pods,jobs,secrets"
        )
        ours = f"app.kubernetes.io/instance={RELEASE}"
        wait_until(
            "that nothing is left",
            lambda: (
                not get(kinds, f"--namespace={NAMESPACE}", f"--selector={ours}")["items"]
                and not get("pods,services", f"--namespace={NAMESPACE}", "--selector=ray.io/cluster")["items"]
            ),
            READY_TIMEOUT_S,
        )

    # Shared

    def _helm(self, verb: str, *more: str) -> None:
        tags = [f"images.{name}.tag={self.tag}" for name in ("serve", "train")]
        words = [word for tag in tags for word in ("--set", tag)]
        # The autoscaler writes into the RayClusters that the chart made; what the chart says goes.
        force = ["--force-conflicts"] if verb == "upgrade" else []
        run("helm", verb, RELEASE, CHART, f"--namespace={NAMESPACE}", f"--values={VALUES}", *force, *words, *more)

    @property
    def _url(self) -> str:
        return f"http://{kube.node_address()}:{INGRESS_PORT}/upload"

    def _upload(
        self,
        key: str | None = "",
        params: dict[str, str] | None = None,
        picture: bytes | None = None,
        host: str = HOST,
    ) -> httpx.Response:
        headers = {"Host": host} | ({} if key is None else {"X-API-Key": key or self.keys.api})
        try:
            return httpx.post(
                self._url, headers=headers, params=params, files={"file": picture or self.picture}, timeout=60
            )
        except httpx.TransportError as error:
            raise KubeError(f"no answer: {error!r}") from error

    def _expect_mask(self, answer: httpx.Response) -> None:
        """As a PNG, what the bundled model says of our picture."""
        mask_HW, expected_HW = np.asarray(Image.open(io.BytesIO(answer.content))), prepare.local_mask(self.picture)
        differing = float((mask_HW != expected_HW).mean())
        _check(
            differing < 0.001, f"{differing:.1%} of the mask's pixels differ from what the same model says elsewhere"
        )

    def _load(self, num_clients: int = 2, pause_s: float = 0.2) -> Load:
        headers = {"Host": HOST, "X-API-Key": self.keys.api}
        return Load(f"{self._url}?format=png", self.picture, headers, num_clients=num_clients, pause_s=pause_s)

    def _expect_no_failure(self, what: str, load: Load) -> None:
        self.figures[f"requests during {what}"] = str(load)
        _check(not load.failures, f"{what}: {load}")

    def _serves(self, name: str) -> bool:
        """Whether many answers in a row came from a model of this name, and the application is at rest."""
        answers = {self._upload().headers.get("X-Model-Name") for _ in range(20)}
        return answers == {name} and self._status() == "RUNNING"

    def _service(self) -> dict[str, Any]:
        status: dict[str, Any] = get(f"rayservice/{RELEASE}", f"--namespace={NAMESPACE}")["status"]
        return status

    def _status(self) -> str:
        return str(self._service()["activeServiceStatus"]["applicationStatuses"]["roadseg"]["status"])

    def _active_cluster(self) -> str:
        return str(self._service()["activeServiceStatus"]["rayClusterName"])

    def _wait_until_whole(self) -> None:
        """Until all workers run and the application too; a worker that got no replica is not ready, and need not be."""

        def whole() -> bool:
            running = [pod for pod in pods(NAMESPACE, WORKERS) if pod["status"]["phase"] == "Running"]
            return len(running) >= NUM_WORKERS and any(map(is_ready, running)) and self._status() == "RUNNING"

        wait_until("that all workers run", whole, READY_TIMEOUT_S)

    def _wait_until_running(self) -> None:
        wait_until("that the application runs", lambda: self._status() == "RUNNING", READY_TIMEOUT_S)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise KubeError(otherwise)


def _finish(job: "subprocess.Popen[str]") -> str:
    """What a job printed, once it has ended well."""
    told, _ = job.communicate(timeout=READY_TIMEOUT_S)
    _check(job.returncode == 0, f"{job.args!r} ended with {job.returncode}:\n{told[-4000:]}")
    return told


def save(figures: dict[str, Any], path: Path) -> None:
    """The figures as JSON."""
    path.write_text(json.dumps(figures, indent=2) + "\n")
