import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tests.chart.conftest import DASHBOARDS, EVERYTHING, Objects

with warnings.catch_warnings():
    # Only the newest Grafana reads the second dashboard format.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.models.dashboard import Dashboard

FILES = sorted(DASHBOARDS.glob("*.json"))
MOST_BYTES = 1_000_000
GRAFANAS_OWN = {"__rate_interval"}

each_file = pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in read(path)["panels"] if panel["type"] != "row"]


def test_there_are_five_dashboards() -> None:
    assert [path.stem for path in FILES] == ["autoscaling", "cluster", "model", "serving", "training"]
    assert len({read(path)["uid"] for path in FILES}) == len(FILES)


@each_file
def test_grafana_reads_every_field(path: Path) -> None:
    content = read(path)
    assert json.loads(json.dumps(Dashboard.from_json(content), cls=JSONEncoder)) == content


@each_file
def test_panels_do_not_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in read(path)["panels"]:
        place = panel["gridPos"]
        squares = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not taken & squares, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= squares


@each_file
def test_panel_ids_are_unique(path: Path) -> None:
    ids = [panel["id"] for panel in read(path)["panels"]]
    assert len(set(ids)) == len(ids)


@each_file
def test_panels_have_units_and_descriptions(path: Path) -> None:
    for panel in panels(path):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len(panel["description"]) > 40, panel["title"]
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), panel["title"]


@each_file
def test_every_variable_is_defined(path: Path) -> None:
    content = read(path)
    known = {variable["name"] for variable in content["templating"]["list"]} | GRAFANAS_OWN
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(content)))
    assert used <= known
    assert used >= {"datasource", "namespace", "release"}


@each_file
def test_every_series_is_limited_to_the_chosen_release(path: Path) -> None:
    for panel in panels(path):
        for target in panel["targets"]:
            for labels in re.findall(r"\{(.*?)\}", target["expr"]):
                assert labels.startswith('namespace="$namespace", release="$release"'), panel["title"]
            # No series lacks a selector: the rest must be functions, labels and keywords of PromQL.
            rest = re.sub(r"\w+\{.*?\}", "", target["expr"])
            assert not re.search(r"\b(ray|autoscaler|haproxy|roadseg)_\w+", rest.replace("ray_train_run_name", ""))


def test_the_chart_hands_them_to_grafanas_sidecar(render: Callable[..., Objects]) -> None:
    maps = [item for item in render(EVERYTHING) if "-dashboard-" in item["metadata"]["name"]]
    assert len(maps) == len(FILES)
    for item in maps:
        assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert item["metadata"]["annotations"]["grafana_folder"] == "roadseg"
        ((name, text),) = item["data"].items()
        assert len(text.encode()) < MOST_BYTES
        assert json.loads(text) == read(DASHBOARDS / name.removeprefix("roadseg-"))
