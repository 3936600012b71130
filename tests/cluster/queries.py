"""Every query of the dashboards and rules, sent to a real Prometheus: each must find something.

An alert that does not fire finds nothing, and `a or b` hides a missing `a`. So every series in a query is looked for by
itself first, and then the queries of panels and recording rules as a whole.
"""

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helm.rules import rules
from tests.prometheus import ask

CHART = Path(__file__).parents[2] / "helm" / "roadseg"
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")

# Series that may be missing, as regular expressions, and why.
NO_GPU = {r"ray_node_(gpus|gram)_": "the machine has no GPU"}
NO_FAILURE = {
    r'status_code=~"5\.\."': "no upload failed",
    r"ray_roadseg_refused_by_ray_total": "there was room for every upload, and none of Ray's own proxies was asked",
}


@dataclass(frozen=True)
class Question:
    """One query.

    Attributes:
        where: dashboard and panel, or rule.
        expression: PromQL.
        answered: whether it finds something while nothing is wrong.
    """

    where: str
    expression: str
    answered: bool = True

    @property
    def series(self) -> list[str]:
        """The series in it."""
        return [f"{name}{{{labels}}}" for name, labels in SELECTOR.findall(self.expression)]


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels that have queries."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def dashboard_questions(path: Path, variables: Mapping[str, str]) -> Iterator[Question]:
    """The queries of a dashboard and of its variables, with values for the variables."""
    dashboard = json.loads(path.read_text())
    for variable in dashboard["templating"]["list"]:
        if match := re.fullmatch(r"label_values\((.*), (\w+)\)", str(variable["query"])):
            series, label = match.groups()
            yield Question(f"{path.stem}: variable {label}", filled(f"count by ({label}) ({series})", variables))
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield Question(f"{path.stem}: {panel['title']}", filled(target["expr"], variables))


def filled(expression: str, variables: Mapping[str, str]) -> str:
    """An expression with its variables replaced."""
    for name, value in variables.items():
        expression = expression.replace(f"${name}", value)
    return expression


def rule_questions(namespace: str, release: str) -> Iterator[Question]:
    """The queries of the rules, with the default values of the chart."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())["monitoring"]["rules"]
    for group in yaml.safe_load(rules(namespace, release, values))["groups"]:
        for rule in group["rules"]:
            yield Question(rule.get("alert") or rule["record"], rule["expr"], answered="record" in rule)


def every_query(
    url: str, namespace: str, release: str, *, may_be_empty: Mapping[str, str], over_s: float = 1800, step_s: float = 15
) -> list[str]:
    """The queries that found nothing in the last `over_s` seconds, each with its place; empty if all is well.

    Args:
        url: of Prometheus.
        namespace: of the release.
        release: its name.
        may_be_empty: regular expressions of series that may be missing, and why.
        over_s: how far to look back.
        step_s: between two evaluations.
    """
    window = f"{max(60, 4 * step_s):.0f}s"
    variables = {"namespace": namespace, "release": release, "run": ".+", "__rate_interval": window}
    questions = [question for path in DASHBOARDS for question in dashboard_questions(path, variables)]
    questions += rule_questions(namespace, release)
    now_s = time.time()

    def finds_nothing(expression: str) -> bool:
        answer = ask(url, "query_range", query=expression, start=now_s - over_s, end=now_s, step=step_s)
        numbers = [float(value) for series in answer["result"] for _, value in series["values"]]
        return all(map(math.isnan, numbers))

    failures = []
    for question in questions:
        due = [one for one in question.series if not any(re.search(part, one) for part in may_be_empty)]
        if missing := [one for one in due if finds_nothing(f"count({one})")]:
            failures += [f"{question.where}: there is no {one}" for one in missing]
        elif (due or not question.series) and question.answered and finds_nothing(question.expression):
            failures.append(f"{question.where}: no answer to {question.expression}")
    return failures
