"""Print the chart's rules for a Prometheus alone, with the values of values.yaml; no Helm is needed.

    python helm/rules.py --namespace NAMESPACE --release RELEASE > rules.yaml

They find series that have these labels, and `component`: the scrape puts them on, as `static_configs` do with `labels`.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "roadseg"
RULES = CHART / "files" / "rules.yaml"
VALUES = CHART / "values.yaml"


def rules(namespace: str, release: str, values: dict[str, Any]) -> str:
    """The rules as YAML.

    Args:
        namespace: of the series.
        release: of the series.
        values: what values.yaml has under monitoring.rules.
    """
    words = {
        "ours": f'namespace="{namespace}", release="{release}"',
        # As decimal numbers: 1 - 0.999 is 0.0010000000000000009.
        "availability_budget": f"{1 - values['availabilityTarget']:.6g}",
        "latency_budget": f"{1 - values['latencyTarget']:.6g}",
        "latency_threshold": f"{values['latencyThresholdMs']}.0",
        "runbook": values["runbookUrl"],
    }
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for group in groups:
        windows = group.pop("windows", [""])
        group["rules"] = [fill(rule, words | {"window": window}) for rule in group["rules"] for window in windows]
    return yaml.safe_dump({"groups": groups}, sort_keys=False)


def fill(rule: dict[str, Any], words: dict[str, str]) -> Any:
    """A rule with what its @words@ stand for."""
    text = yaml.safe_dump(rule, sort_keys=False)
    for word, meaning in words.items():
        text = text.replace(f"@{word}@", meaning)
    return yaml.safe_load(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the rules for a Prometheus alone.")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--release", required=True)
    given = parser.parse_args()
    known = yaml.safe_load(VALUES.read_text(encoding="utf-8"))["monitoring"]["rules"]
    print(rules(given.namespace, given.release, known), end="")
