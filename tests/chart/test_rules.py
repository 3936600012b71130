import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.constants import DEFAULT_LATENCY_BUCKET_MS

from helm.rules import rules
from tests.chart.conftest import CHART, EVERYTHING, ROOT, Objects, helm
from tests.prometheus import scrape_config

TESTS = Path(__file__).with_name("rules_test.yaml")
NAMESPACE, RELEASE = "ns", "road"


def values() -> dict[str, Any]:
    known: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["rules"]
    return known


def promtool(*arguments: str | Path) -> None:
    program = shutil.which("promtool") or ROOT / ".tools/prometheus/promtool"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules_with(key: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load(rules(NAMESPACE, RELEASE, values()))["groups"]
    return [rule for group in groups for rule in group["rules"] if key in rule]


def test_alerts_fire_when_and_only_when_they_should(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules(NAMESPACE, RELEASE, values()))
    shutil.copy(TESTS, tmp_path)
    promtool("check", "rules", tmp_path / "rules.yaml")
    promtool("test", "rules", tmp_path / TESTS.name)


def test_every_alert_is_tested_both_ways() -> None:
    checks = [check for test in yaml.safe_load(TESTS.read_text())["tests"] for check in test["alert_rule_test"]]
    names = {alert["alert"] for alert in rules_with("alert")}
    assert {check["alertname"] for check in checks if "exp_alerts" in check} == names
    assert {check["alertname"] for check in checks if "exp_alerts" not in check} == names


def test_alerts_use_the_recorded_shares() -> None:
    asked = re.findall(r"roadseg:\w+:\w+", " ".join(alert["expr"] for alert in rules_with("alert")))
    assert set(asked) == {rule["record"] for rule in rules_with("record")}


def test_every_alert_links_to_a_heading() -> None:
    titles = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    for alert in rules_with("alert"):
        page, anchor = alert["annotations"]["runbook_url"].split("#")
        assert page == "docs/operations.md"
        assert anchor in anchors, alert["alert"]


def test_the_chart_and_the_script_write_the_same_rules(render: Callable[..., Objects]) -> None:
    (item,) = (item for item in render(EVERYTHING) if item["kind"] == "PrometheusRule")
    expected = yaml.safe_load(rules(item["metadata"]["namespace"], "road", values()))
    assert item["spec"] == expected
    assert "@" not in yaml.safe_dump(expected)


def test_the_chart_passes_on_objectives(tmp_path: Path, render: Callable[..., Objects]) -> None:
    objectives = {"availabilityTarget": 0.995, "latencyTarget": 0.9, "latencyThresholdMs": 500}
    (tmp_path / "values.yaml").write_text(
        yaml.safe_dump(
            {"monitoring": {"rules": {"enabled": True, "runbookUrl": "https://wiki.example/roadseg"} | objectives}}
        )
    )
    (item,) = (item for item in render(tmp_path / "values.yaml") if item["kind"] == "PrometheusRule")
    text = yaml.safe_dump(item, width=10_000)
    assert "14.4 * 0.005" in text
    assert "14.4 * 0.1" in text
    assert 'le="500.0"' in text
    assert "https://wiki.example/roadseg#no-model" in text


@pytest.mark.parametrize(
    "refused", ["latencyThresholdMs=700", "availabilityTarget=1", "availabilityTarget=99.9", "latencyTarget=0"]
)
def test_impossible_objectives_are_refused(refused: str) -> None:
    done = helm("lint", "--strict", CHART, "--set-json", f"monitoring.rules.{refused}")
    assert done.returncode != 0
    assert refused.partition("=")[0] in done.stdout + done.stderr


def test_values_list_the_thresholds_of_ray() -> None:
    text = (CHART / "values.yaml").read_text()
    told = re.search(r"bucket of Ray's latency histogram: ([\d, #\n]+) or more", text)
    assert told
    numbers = [int(number) for number in re.findall(r"\d+", told[1])]
    assert numbers == DEFAULT_LATENCY_BUCKET_MS[: len(numbers)]


def test_the_dev_prometheus_scrapes_what_the_pod_monitor_does(render: Callable[..., Objects]) -> None:
    (monitor,) = (item for item in render(EVERYTHING) if item["kind"] == "PodMonitor")
    scrape = scrape_config()
    relabel = [dict(rule) for rule in scrape["relabel_configs"]]
    (ports,) = (rule["regex"] for rule in relabel if "port_name" in rule.get("source_labels", [""])[0])
    endpoints = monitor["spec"]["podMetricsEndpoints"]
    assert ports.split("|") == [endpoint["port"] for endpoint in endpoints]
    for endpoint in endpoints:
        for rule in endpoint["relabelings"]:
            assert {"source_labels": rule["sourceLabels"], "target_label": rule["targetLabel"]} in relabel
        renamed = [
            {key.replace("sourceLabels", "source_labels"): value for key, value in rule.items()}
            for rule in endpoint["metricRelabelings"]
        ]
        assert renamed == scrape["metric_relabel_configs"]


def test_pods_have_the_scraped_ports(render: Callable[..., Objects]) -> None:
    objects = render(EVERYTHING)
    (monitor,) = (item for item in objects if item["kind"] == "PodMonitor")
    scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    (service,) = (item for item in objects if item["kind"] == "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    templates = {
        "head": cluster["headGroupSpec"]["template"],
        "worker": cluster["workerGroupSpecs"][0]["template"],
    }
    ports = {
        name: {port["name"] for port in template["spec"]["containers"][0]["ports"]} & scraped
        for name, template in templates.items()
    }
    assert ports == {"head": scraped, "worker": {"metrics", "haproxy"}}
    for template in templates.values():
        labels = monitor["spec"]["selector"]["matchLabels"].items()
        assert labels <= template["metadata"]["labels"].items()
    (policy,) = (i for i in objects if i["kind"] == "NetworkPolicy" and i["metadata"]["name"].endswith("-ray"))
    let_in = [
        {port["port"] for port in rule["ports"]}
        for rule in policy["spec"]["ingress"]
        if "namespaceSelector" in rule["from"][0]
    ]
    assert scraped in let_in
