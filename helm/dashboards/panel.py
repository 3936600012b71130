"""What a dashboard is made of, as plain data; draw.py makes Grafana's JSON of it.

In a query, OURS stands for what selects the series of the release that is looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WINDOW = "$__rate_interval"  # Grafana's own: four scrapes at least


@dataclass(frozen=True)
class Panel:
    """One question, and its answer.

    Attributes:
        title: in plain words.
        description: what to do when it looks bad.
        unit: Grafana's name of it.
        queries: PromQL by the name of its series; `{{label}}` in a name is that label's value.
        width: of the 24 columns.
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
        name: of the file.
        title: in Grafana.
        description: whom it is for.
        rows: panels by their common heading.
        runs: whether it is about training runs, among which may be chosen.
    """

    name: str
    title: str
    description: str
    rows: Mapping[str, Sequence[Panel]]
    runs: bool = False


def rate(counter: str, by: str = "", where: str = "") -> str:
    """How much a counter grows each second, in all or for each of some labels."""
    return f"sum{_by(by)}(rate({counter}{_select(where)}[{WINDOW}]))"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """The value that a share of the recent observations is below."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, where)})"


def quantiles(histogram: str, where: str = "") -> dict[str, str]:
    """The middle, the slow and the slowest."""
    return {
        "half are below": quantile(0.5, histogram, where=where),
        "95 % are below": quantile(0.95, histogram, where=where),
        "99 % are below": quantile(0.99, histogram, where=where),
    }


def total(gauge: str, by: str = "", where: str = "", how: str = "sum") -> str:
    """A gauge of all replicas or pods together."""
    return f"{how}{_by(by)}({gauge}{_select(where)})"


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


def _select(where: str) -> str:
    return f"{{OURS, {where}}}" if where else "{OURS}"
