"""What a team does with roadseg on a cluster, step by step, with real servers and under real load."""

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster import kube, prepare, release
from tests.cluster.deployment import BUNDLED, GATEWAY_HOST, HEAD, RELEASE, WORKERS, Deployment, component
from tests.cluster.kube import expect, get, is_ready, kubectl, pods, run, wait_until
from tests.cluster.load import Load
from tests.cluster.prepare import BUCKET, MONITORING_NAMESPACE, NAMESPACE, READY_TIMEOUT_S, Keys
from tests.cluster.queries import NO_FAILURE, NO_GPU, every_query
from tests.red import write_red

TRAIN_WORKERS = component("train-worker")
RED, TRAINED = "models/red/1", "models/road-cluster/1"  # in the bucket
LOOK_BACK_S = 3600.0  # to before the load and the training
LOG_TIMEOUT_S = 30
CALM_S = 5.0  # constant load before and after each change to the cluster


class Journey:
    """One release, from its installation to its removal.

    Args:
        tag: of the images.
        everything: whether to take all steps, not only those for every change.

    Attributes:
        figures: what was measured, by name.
    """

    def __init__(self, tag: str, everything: bool) -> None:
        self.keys = Keys.of_cluster()
        self.tag = tag
        self.everything = everything
        self.deployed = Deployment(self.keys, tag, everything)
        self.figures: dict[str, Any] = {}

    @property
    def steps(self) -> list[Callable[[], None]]:
        """The steps in order; all but the last leave the release serving."""
        if not self.everything:
            return [
                self.build_images,
                self.install_what_is_needed,
                self.install_the_chart,
                self.test_the_chart,
                self.upload_through_the_ingress,
                self.change_the_model,
                self.uninstall,
            ]
        return [
            self.build_images,
            self.release,
            self.install_what_is_needed,
            self.install_the_chart,
            self.test_the_chart,
            self.upload_through_the_ingress,
            self.find_the_upload_in_the_log,
            self.upload_through_the_gateway,
            self.keep_strangers_out,
            self.scale_up_and_down,  # before a change of the model, which leaves extra pods for a while
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
        names = ("serve", "train") if self.everything else ("serve",)
        self.figures["images"] = prepare.load_images(self.tag, *names).strip().splitlines()
        if not kubectl("config", "current-context").startswith("kind-"):
            prepare.load_helper_images(self.everything)

    def release(self) -> None:
        self.figures["seconds of a release of the serve image and the chart"] = release.release_and_find()

    def install_what_is_needed(self) -> None:
        prepare.install_operator()
        prepare.install_services(self.keys, self.everything)
        with tempfile.TemporaryDirectory() as folder:
            if self.everything:
                prepare.install_prometheus(RELEASE)
                prepare.write_dataset(Path(folder) / "CamVid")
            else:
                write_red(Path(folder) / RED)
            prepare.put_files(self.keys, Path(folder))

    def install_the_chart(self) -> None:
        start_s = time.monotonic()
        self.deployed.helm("install")
        wait_until("the first mask", lambda: self.deployed.upload().status_code == 200, READY_TIMEOUT_S)
        self.figures["seconds from helm install to the first mask"] = time.monotonic() - start_s
        self.deployed.wait_until_running()

    def test_the_chart(self) -> None:
        run("helm", "test", RELEASE, f"--namespace={NAMESPACE}", "--logs")

    def upload_through_the_ingress(self) -> None:
        self.deployed.expect_mask(self.deployed.upload(params={"format": "png"}).content)
        expect(self.deployed.upload(key="wrong").status_code == 401, "a wrong key was accepted")
        expect(self.deployed.upload(key=None).status_code == 401, "a request without a key was accepted")
        expect(self.deployed.upload(picture=b"no picture").status_code == 415, "a file that is no picture was accepted")

    def find_the_upload_in_the_log(self) -> None:
        request_id = f"journey-{secrets.token_hex(8)}"
        self.deployed.upload(request_id=request_id)
        wait_until("its line in a pod's log", lambda: self.deployed.has_logged(request_id), LOG_TIMEOUT_S)

    def upload_through_the_gateway(self) -> None:
        wait_until(
            "the gateway's route", lambda: self.deployed.upload(host=GATEWAY_HOST).status_code != 404, READY_TIMEOUT_S
        )
        self.deployed.expect_mask(self.deployed.upload(host=GATEWAY_HOST, params={"format": "png"}).content)

    def keep_strangers_out(self) -> None:
        """A pod in another namespace reaches the uploads, and none of the ports that could run code."""
        (head,), workers = pods(NAMESPACE, HEAD), pods(NAMESPACE, WORKERS)
        head_ip, worker_ip = head["status"]["podIP"], workers[0]["status"]["podIP"]
        closed = [f"{head_ip}/{port}" for port in (6379, 8265, 10001, 8080, 44217, 44227)]
        closed += [f"{worker_ip}/{port}" for port in (52365, 8080, 9101)]
        uploads = f"{worker_ip}/8000"
        reached = kube.reached_by_a_stranger(f"roadseg/serve:{self.tag}", uploads, closed)
        expect(reached == [uploads], f"a pod in another namespace should reach {uploads} only, but reaches {reached}")

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
            expect("step 120" in told or self._has("runs/first/summary.json"), f"the run did not finish:\n{told}")
            evaluate = f"roadseg-train evaluate --run {places['run']} --robustness-frames 0"
            metrics = f"{places['run']}/evaluation/camvid-heldout/metrics.json"
            publish = (
                f"roadseg-train publish --run {places['run']} --store {places['store']} --name road-cluster --version 1"
            )
            for words in (evaluate, f"{publish} --evaluation {metrics}"):
                with self._submit(port, words) as job:
                    _finish(job)
        expect(self._has("models/road-cluster/1/manifest.json"), "there is no artefact")
        self.figures["seconds of a training on two workers that lost one of them"] = time.monotonic() - start_s

    def train_as_declared(self) -> None:
        """A RayJob makes a cluster, trains on it and removes it; its worker pod is deleted on the way."""
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
        self.deployed.helm("upgrade", "--set-json", f"training.job={json.dumps(job)}")
        wait_until("some steps", lambda: has_ended() or re.search(r"step [0-9]+/300", told()), READY_TIMEOUT_S)
        expect(not has_ended(), f"the job ended too early:\n{told()[-4000:]}")
        ours = f"ray.io/cluster={status()['rayClusterName']}"
        (worker,) = pods(NAMESPACE, f"{ours},ray.io/node-type=worker")
        kubectl("delete", "pod", worker["metadata"]["name"], f"--namespace={NAMESPACE}", "--wait=false")
        wait_until("what it saves before", lambda: self._has("runs/declared/checkpoint_"), READY_TIMEOUT_S)
        expect(not has_ended(), "the job ended before it saved")
        wait_until("the end of the job", has_ended, READY_TIMEOUT_S)
        expect(status()["jobStatus"] == "SUCCEEDED", f"the job ended as {status()}")
        expect(told().count(" step 1/300:") == 1, f"the training began anew:\n{told()[-4000:]}")
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
        """Change to a model in S3: the trained one, or else one whose masks are unlike those of the bundled model."""
        name, folder = ("road-cluster", TRAINED) if self.everything else ("red", RED)
        with tempfile.TemporaryDirectory() as copy:
            prepare.get_files(self.keys, folder, Path(copy))
            self.deployed.add_model(name, Path(copy))
        with self.deployed.load() as load:
            time.sleep(CALM_S)
            start_s = time.monotonic()
            self.deployed.helm("upgrade", "--set", f"app.model=s3://{BUCKET}/{folder}")
            wait_until("the new model alone", lambda: self.deployed.serves(name), READY_TIMEOUT_S)
            self.figures["seconds of a change of the model"] = time.monotonic() - start_s
            time.sleep(CALM_S)
        self._expect_no_failure("a change of the model", load)

    def change_it_back(self) -> None:
        with self.deployed.load() as load:
            time.sleep(CALM_S)
            run("helm", "rollback", RELEASE, f"--namespace={NAMESPACE}", "--force-conflicts")
            wait_until("the old model alone", lambda: self.deployed.serves(BUNDLED), READY_TIMEOUT_S)
            time.sleep(CALM_S)
        self._expect_no_failure("the rollback", load)

    def change_the_image(self) -> None:
        prepare.load_images(f"{self.tag}-next", "serve")
        before = self.deployed.active_cluster()
        with self.deployed.load() as load:
            time.sleep(CALM_S)
            start_s = time.monotonic()
            self.deployed.helm("upgrade", "--set", f"images.serve.tag={self.tag}-next")
            wait_until("a new cluster", lambda: self.deployed.active_cluster() != before, READY_TIMEOUT_S)
            self.figures["seconds of a change of the image"] = time.monotonic() - start_s
            gone = f"ray.io/cluster={before}"
            wait_until("the end of the old cluster", lambda: not pods(NAMESPACE, gone), READY_TIMEOUT_S)
            time.sleep(CALM_S)
        self._expect_no_failure("a change of the image", load)

    def scale_up_and_down(self) -> None:
        before = {pod["metadata"]["name"] for pod in pods(NAMESPACE, WORKERS)}

        def added() -> list[dict[str, Any]]:
            return [pod for pod in pods(NAMESPACE, WORKERS) if pod["metadata"]["name"] not in before]

        with self.deployed.load(num_clients=12, pause_s=0) as load:
            first_pod_s = wait_until("another worker pod", added, READY_TIMEOUT_S)
            ready_s = wait_until("the new pod serving", lambda: any(map(is_ready, added())), READY_TIMEOUT_S)
            self.figures["seconds from load to the first new pod, and to its readiness"] = [
                first_pod_s,
                first_pod_s + ready_s,
            ]
        self._expect_no_failure("scaling up", load)
        with self.deployed.load() as load:
            down_s = wait_until("the extra pods gone", lambda: not added(), READY_TIMEOUT_S)
            self.figures["seconds from idleness to the last pod's end"] = down_s
        self._expect_no_failure("scaling down", load)

    # Losses

    def lose_a_worker(self) -> None:
        self.deployed.wait_until_whole()
        victim = next(pod["metadata"]["name"] for pod in pods(NAMESPACE, WORKERS) if is_ready(pod))
        with self.deployed.load() as load:
            time.sleep(CALM_S)
            kubectl("delete", "pod", victim, f"--namespace={NAMESPACE}")
            self.deployed.wait_until_whole()
            time.sleep(CALM_S)
        self._expect_no_failure("the loss of a worker pod", load)

    def lose_the_head(self) -> None:
        """With fault tolerance of the GCS, the workers go on serving while the head is replaced."""
        (before,) = pods(NAMESPACE, HEAD)
        with self.deployed.load() as load:
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
            self.deployed.wait_until_running()
            time.sleep(CALM_S)
        self._expect_no_failure("the loss of the head", load)

    # Looking at it

    def find_every_figure(self) -> None:
        """After every step that makes them, Prometheus has all series that the dashboards and alerts ask for."""
        with kube.forwarded(MONITORING_NAMESPACE, "prometheus", 9090) as port:
            missing = every_query(
                f"http://127.0.0.1:{port}", NAMESPACE, RELEASE, may_be_empty=NO_GPU | NO_FAILURE, over_s=LOOK_BACK_S
            )
        expect(not missing, "Prometheus lacks series of the dashboards or alerts:\n" + "\n".join(missing))

    def uninstall(self) -> None:
        # First, as docs/operations.md says: KubeRay clears Redis in a job that needs the release's service account.
        kubectl("delete", f"rayservice/{RELEASE}", f"--namespace={NAMESPACE}", "--wait", "--timeout=5m")
        run("helm", "uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait")
        kinds = (
            "rayservices,rayclusters,rayjobs,services,ingresses,networkpolicies,poddisruptionbudgets,pods,jobs,secrets"
        )
        ours = f"app.kubernetes.io/instance={RELEASE}"
        wait_until(
            "nothing left",
            lambda: (
                not get(kinds, f"--namespace={NAMESPACE}", f"--selector={ours}")["items"]
                and not get("pods,services", f"--namespace={NAMESPACE}", "--selector=ray.io/cluster")["items"]
            ),
            READY_TIMEOUT_S,
        )

    def _expect_no_failure(self, what: str, load: Load) -> None:
        self.figures[f"requests during {what}"] = str(load)
        self.deployed.expect_no_failure(what, load)


def _finish(job: "subprocess.Popen[str]") -> str:
    """Wait until a job succeeds; its output."""
    told, _ = job.communicate(timeout=READY_TIMEOUT_S)
    expect(job.returncode == 0, f"{job.args!r} ended with {job.returncode}:\n{told[-4000:]}")
    return told


def save(figures: dict[str, Any], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(figures, indent=2) + "\n")
