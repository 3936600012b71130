"""The chart, rendered by the real helm, which `ci/tools/install helm` builds."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "roadseg"
HELM = ROOT / ".tools" / "bin" / "helm"
DASHBOARDS = CHART / "files" / "dashboards"
EVERYTHING = CHART / "tests" / "everything.yaml"
OVERLAYS = (None, *sorted(CHART.glob("values-*.yaml")))

Objects = list[dict[str, Any]]


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert HELM.exists(), "helm is missing; run ci/tools/install helm"
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def render() -> Callable[..., Objects]:
    """The objects of a release named `road` with values files; None is values.yaml."""

    def render(*values: Path | None) -> Objects:
        files = [option for path in values if path for option in ("--values", path)]
        done = helm("template", "road", CHART, *files)
        assert done.returncode == 0, done.stderr
        return [item for item in yaml.safe_load_all(done.stdout) if item]

    return render
