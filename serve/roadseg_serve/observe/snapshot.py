"""Takes the snapshots that `status` works on; apart from it, so that the HTTP routes do not import Ray."""

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import ray
from ray import serve

from roadseg_serve.observe.prometheus import Series, parse
from roadseg_serve.observe.status import NAMES, Snapshot

TIMEOUT_S = 3.0
NUM_SCRAPES = 8  # at once


def take_snapshot() -> Snapshot:
    """Ask every live node for its metrics, and Ray Serve for the deployments; works inside a replica only."""
    time_s = time.time()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    urls = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes]
    with ThreadPoolExecutor(NUM_SCRAPES) as pool:
        texts = list(pool.map(_scrape, urls))
    num_silent = texts.count(None)
    problem = f"{num_silent} of {len(nodes)} nodes did not answer; their figures are missing."
    series: Series = {}
    for url, text in zip(urls, texts, strict=True):
        series |= parse(text or "", NAMES, node=url)
    application = serve.status().applications[serve.get_replica_context().app_name]
    deployments = {
        name: (deployment.status.value, {str(state): num for state, num in deployment.replica_states.items()})
        for name, deployment in application.deployments.items()
    }
    return Snapshot(time_s, series, deployments, [problem] if num_silent else [])


def _scrape(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  # a node of our own cluster
            return str(answer.read(), "utf-8")
    except OSError:
        return None
