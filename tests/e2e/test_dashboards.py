"""Nothing shows "No data": a real server and a training, and a real Prometheus that is asked what dashboards ask."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import yaml

from helm.rules import rules
from tests.cluster.prepare import write_dataset
from tests.cluster.queries import CHART, NO_FAILURE, NO_GPU, every_query
from tests.e2e.head import Head
from tests.prometheus import Prometheus, ask
from tests.server import ROOT, Server
from tests.uploads import WHOLE

pytestmark = pytest.mark.parametrize("form", ["staged"], indirect=True, scope="session")  # as on a cluster

NAMESPACE, RELEASE = "here", "road"
PYTHON_DATA_PLANE = {r"^haproxy_": "ci/serve has Ray's Python proxy"}
UPLOAD_EVERY_S = 0.2
NUM_STEPS, CHECKPOINT_EVERY = 100_000, 5  # more than there is time for
# A rate needs two exports, and a training has to start meanwhile.
LOAD_TIMEOUT_S, LOOK_EVERY_S = 480, 2


def labels(component: str) -> dict[str, str]:
    """What the scrape of a pod puts on its series."""
    return {"namespace": NAMESPACE, "release": RELEASE, "component": component, "pod": f"{component}-0"}


@pytest.fixture(scope="module")
def training(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A training that goes on until the end of the module."""
    folder = tmp_path_factory.mktemp("training")
    write_dataset(folder / "CamVid")
    command = [str(ROOT / ".venv/dev/bin/roadseg-train"), "fit", "--data", str(folder / "CamVid")]
    command += ["--run", str(folder / "runs/first"), "--steps", str(NUM_STEPS)]
    command += ["--checkpoint-every", str(CHECKPOINT_EVERY)]
    command += ["--workers", "1", "--cpus-per-worker", "1", "--loaders", "0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | dict(head.env), stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
        assert process.poll() is None, (folder / "log").read_text()
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture(scope="module")
def prometheus(
    server: Server, head: Head, training: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """It scrapes both, and has the rules of the chart."""
    assert training is None
    (port_file,) = server.session().glob("metrics_export_port_*")
    ports = {int(port_file.read_text()): "serve-head", head.metrics_port: "train-head"}
    ports |= dict.fromkeys(server.ray_ports, "serve-head")
    values = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["rules"]
    values["latencyThresholdMs"] = 10_000  # how fast this machine is at the moment is not asked
    process = Prometheus(
        tmp_path_factory.mktemp("prometheus"),
        {f"127.0.0.1:{port}": labels(component) for port, component in ports.items()},
        rules(NAMESPACE, RELEASE, values),
    )
    try:
        yield process
    finally:
        process.end()


@contextmanager
def load(url: str) -> Iterator[None]:
    """Pictures, and now and then something that is none."""
    ended = threading.Event()

    def upload() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not ended.wait(UPLOAD_EVERY_S):
                client.post("/upload", files={"file": WHOLE})
                client.post("/upload", files={"file": b"no picture"})

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_every_question_finds_something(server: Server, prometheus: Prometheus) -> None:
    may_be_empty = NO_GPU | NO_FAILURE | PYTHON_DATA_PLANE
    deadline_s = time.monotonic() + LOAD_TIMEOUT_S
    with load(server.url):
        while True:
            time.sleep(LOOK_EVERY_S)
            failures = every_query(
                prometheus.url, NAMESPACE, RELEASE, may_be_empty=may_be_empty, over_s=LOAD_TIMEOUT_S, step_s=2
            )
            if not failures or time.monotonic() > deadline_s:
                break
    assert not failures, "\n".join(failures)


def test_a_training_tells_how_far_it_is(prometheus: Prometheus) -> None:
    def told(name: str) -> float:
        query = f'ray_roadseg_train_{name}{{release="{RELEASE}", run="first"}}'
        (series,) = ask(prometheus.url, "query", query=query)["result"]
        return float(series["value"][1])

    assert told("running") == told("starts_total") == 1
    assert told("last_step") == NUM_STEPS
    # Each is told at a moment of its own.
    assert told("checkpoints_total") == pytest.approx(told("steps_total") / CHECKPOINT_EVERY, abs=10)
    assert told("steps_total") == pytest.approx(told("step"), abs=50)
    assert 0 < told("loss") < 10
    assert 0 < told("heldout_iou") <= 1
    assert told("images_per_second") > 0
    assert 0 <= told("data_wait_share") <= 1


def test_no_alert_fires_while_all_is_well(prometheus: Prometheus) -> None:
    firing = [alert for alert in ask(prometheus.url, "alerts")["alerts"] if alert["state"] == "firing"]
    assert not firing, firing


def test_a_name_that_ray_does_not_export_is_noticed(prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.cluster.queries.DASHBOARDS", [])
    monkeypatch.setattr("tests.cluster.queries.rules", lambda *_: yaml.safe_dump(RENAMED))
    (failure,) = every_query(prometheus.url, NAMESPACE, RELEASE, may_be_empty={}, over_s=60, step_s=2)
    assert failure == 'RoadsegNoModel: there is no ray_roadseg_model_gone{namespace="here"}'


RENAMED = {
    "groups": [
        {
            "rules": [
                {"alert": "RoadsegNoModel", "expr": 'up{namespace="here"} or ray_roadseg_model_gone{namespace="here"}'}
            ]
        }
    ]
}
