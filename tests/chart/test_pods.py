import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.conftest import EVERYTHING, OVERLAYS, ROOT, Objects

Pod = dict[str, Any]


def mappings(item: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in an object at any depth, outer ones first."""
    if isinstance(item, dict):
        yield item
        item = list(item.values())
    if isinstance(item, list):
        for part in item:
            yield from mappings(part)


def pods(item: Any) -> Iterator[Pod]:
    """Every pod spec in an object."""
    return (part for part in mappings(item) if "containers" in part)


@pytest.fixture(scope="module")
def everything(render: Callable[..., Objects]) -> Objects:
    development = [
        item
        for path in sorted((ROOT / "k8s").glob("dev-*.yaml"))
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]
    return [item for overlay in OVERLAYS for item in render(overlay, EVERYTHING)] + development


def test_every_pod_meets_the_restricted_standard(everything: Objects) -> None:
    found = list(pods(everything))
    # Head and worker to serve, to train and for the job, its submitter, and the test; then S3, Redis and Prometheus.
    assert len(found) == 8 * len(OVERLAYS) + 3
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "secret", "configMap"}
        for container in pod["containers"]:
            assert is_restricted(container["securityContext"])
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_the_autoscaler_beside_a_head_meets_it_too(everything: Objects) -> None:
    clusters = [cluster for item in everything for cluster in clusters_of(item)]
    assert len(clusters) == 3 * len(OVERLAYS)
    for cluster in clusters:
        assert is_restricted(cluster["autoscalerOptions"]["securityContext"])
        # It may only mount volumes of the head.
        names = {volume["name"] for volume in cluster["headGroupSpec"]["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in cluster["autoscalerOptions"]["volumeMounts"]} <= names


def is_restricted(context: dict[str, Any]) -> bool:
    return (
        context["allowPrivilegeEscalation"] is False
        and context["capabilities"] == {"drop": ["ALL"]}
        and context["readOnlyRootFilesystem"] is True
    )


def clusters_of(item: dict[str, Any]) -> list[dict[str, Any]]:
    fields = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}
    if item["kind"] == "RayCluster":
        return [item["spec"]]
    return [item["spec"][fields[item["kind"]]]] if item["kind"] in fields else []


def test_every_image_has_a_version(everything: Objects) -> None:
    images = {container["image"] for pod in pods(everything) for container in pod["containers"]}
    assert {"roadseg/serve:0.1.0", "roadseg/serve-gpu:0.1.0", "roadseg/train:0.1.0"} < images
    assert all(re.search(r"(:v?[0-9]+(\.[0-9]+)+|@sha256:[0-9a-f]{64})$", image) for image in images)


def test_ray_drains_before_kubernetes_kills(everything: Objects) -> None:
    (service, *_) = (item for item in everything if item["kind"] == "RayService")
    for pod in pods(service):
        env = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        # An HTTP replica takes at least 35 s to leave HAProxy.
        steps = (35, float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]), pod["terminationGracePeriodSeconds"])
        assert all(before < after for before, after in pairwise(steps))


def test_no_pod_label_replaces_one_that_services_of_kuberay_select_by(everything: Objects) -> None:
    """KubeRay's head service selects app.kubernetes.io/name: kuberay, and a label of ours would replace that."""
    for cluster in (cluster for item in everything for cluster in clusters_of(item)):
        templates = [
            cluster["headGroupSpec"]["template"],
            *(group["template"] for group in cluster["workerGroupSpecs"]),
        ]
        for template in templates:
            assert "app.kubernetes.io/name" not in template["metadata"]["labels"]


def test_policies_and_budgets_select_existing_pods(everything: Objects) -> None:
    labels = [item["metadata"]["labels"] for item in templates_of(everything)]
    selectors = [
        selector
        for item in everything
        if item["kind"] in {"NetworkPolicy", "PodDisruptionBudget"}
        for selector in (item["spec"].get("podSelector") or item["spec"]["selector"],)
    ]
    assert len(selectors) == 3 * len(OVERLAYS)
    for selector in selectors:
        assert any(selector["matchLabels"].items() <= pod.items() for pod in labels)


def templates_of(item: Any) -> Iterator[dict[str, Any]]:
    """Every pod template in an object, with its metadata."""
    return (part for part in mappings(item) if "metadata" in part and "containers" in part.get("spec", {}))


@pytest.mark.parametrize("path", sorted((ROOT / "k8s").glob("*.yaml")), ids=lambda path: path.name)
def test_files_for_kubectl_are_yaml_without_secrets(path: Path) -> None:
    items = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    assert items
    assert not any(item.get("kind") == "Secret" for item in items)
