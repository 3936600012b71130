"""Dashboards and panels as plain data; draw.py turns them into Grafana's JSON.

In a query, OURS stands for the labels that select the chosen release.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WINDOW = "$__rate_interval"  # Grafana's variable: at least four scrapes


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: what it shows.
        description: what to do if it looks bad.
        unit: Grafana's name of the unit.
        queries: PromQL by legend; `{{label}}` in a legend is the value of that label.
        width: how many of the 24 columns it takes.
    """

    title: str
    description: str
    unit: str
    queries: Mapping[str, str]
    width: int = 8


@dataclass(frozen=True)
class Dashboard:
    """Panels in rows.

    Attributes:
        name: the file's name, without suffix.
        title: the title in Grafana.
        description: what it is for.
        rows: panels by the heading of their row.
        runs: whether it shows training runs and needs a drop-down list of them.
    """

    name: str
    title: str
    description: str
    rows: Mapping[str, Sequence[Panel]]
    runs: bool = False


def rate(counter: str, by: str = "", where: str = "") -> str:
    """Growth of a counter per second, summed up or by some labels."""
    return f"sum{_by(by)}(rate({counter}{_select(where)}[{WINDOW}]))"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """A quantile of recent observations; `share` is in [0, 1]."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, where)})"


def quantiles(histogram: str, where: str = "") -> dict[str, str]:
    """Median, 95th and 99th percentile, by legend."""
    return {
        "p50": quantile(0.5, histogram, where=where),
        "p95": quantile(0.95, histogram, where=where),
        "p99": quantile(0.99, histogram, where=where),
    }


def total(gauge: str, by: str = "", where: str = "", how: str = "sum") -> str:
    """A gauge aggregated over all replicas or pods, in all or by some labels."""
    return f"{how}{_by(by)}({gauge}{_select(where)})"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


def _select(where: str) -> str:
    return f"{{OURS, {where}}}" if where else "{OURS}"
