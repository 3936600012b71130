import json
import re

import pytest
import yaml

from tests.chart.conftest import CHART, ROOT, helm


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ("app.modle=bundled:full", "modle"),
        ("app.predict.num_cpu=2", "num_cpu"),
        ("app.gate.rate=10/second", "rate"),
        ("app.predict.autoscaling_config.min_replica=1", "min_replica"),
        ("serve.worker.numCpus=2", "worker"),
        ("serve.dataPlane=envoy", "dataPlane"),
        ("images.serve.digest=sha256:abc", "digest"),
        ("app.form=stagd", "form"),
    ],
)
def test_lint_refuses_unknown_values(value: str, refused: str) -> None:
    done = helm("lint", "--strict", CHART, "--set", value)
    assert done.returncode != 0
    assert refused in done.stdout + done.stderr


@pytest.mark.parametrize(
    "value",
    [
        'app.gate.rate_limit="10/second"',
        "app.threshold=0.4",
        'app.predict.engine="onnxruntime"',
        "app.backpressure_config.status_code=429",
        'serve.workers.tolerations=[{"operator": "Exists"}]',
        'commonLabels.team="vision"',
        "global.anything=1",
    ],
)
def test_lint_accepts_known_values(value: str) -> None:
    done = helm("lint", "--strict", CHART, "--set-json", value)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_part_of_the_schema_accepts_any_key() -> None:
    """Except for objects of Kubernetes, which have no `properties`."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    waiting, seen = [schema], 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "properties" in part:
                seen += 1
                assert part["additionalProperties"] is False, part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    assert seen > 20


def test_versions_match_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    rays = set(re.findall(r'"ray\[[a-z,]*\]==([0-9.]+)"', project))
    assert {chart["annotations"]["roadseg/ray-version"]} == rays
    assert re.search(r'^version = "(.*)"$', project, re.M)[1] == chart["appVersion"] == chart["version"]  # type: ignore[index]


def test_the_operator_version_is_the_tested_one() -> None:
    go_mod = (ROOT / "ci" / "tools" / "kubernetes" / "go.mod").read_text()
    (version,) = re.findall(r"github.com/ray-project/kuberay/ray-operator v([0-9.]+)", go_mod)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((ROOT / "k8s" / "kuberay-operator-values.yaml").read_text())
    assert chart["annotations"]["roadseg/kuberay-version"] == version
    assert values["image"]["tag"] == f"v{version}"
    assert f"--version {version} " in (ROOT / "k8s" / "README.md").read_text()
