"""Print the chart's alert rules for a Prometheus without Helm and operator, with the defaults of values.yaml.

    python helm/rules.py --namespace NAMESPACE --release RELEASE > rules.yaml

The rules select series by the labels `namespace`, `release` and `component`, which the scrape config must add, for
example with `labels` of `static_configs`.
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
        namespace: value of the label `namespace`.
        release: value of the label `release`.
        values: `monitoring.rules` of values.yaml.
    """
    words = {
        "ours": f'namespace="{namespace}", release="{release}"',
        # Rounded, because 1 - 0.999 is 0.0010000000000000009.
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
    """A rule with its @words@ replaced."""
    text = yaml.safe_dump(rule, sort_keys=False)
    for word, meaning in words.items():
        text = text.replace(f"@{word}@", meaning)
    return yaml.safe_load(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the alert rules for a Prometheus without Helm.")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--release", required=True)
    given = parser.parse_args()
    known = yaml.safe_load(VALUES.read_text(encoding="utf-8"))["monitoring"]["rules"]
    print(rules(given.namespace, given.release, known), end="")
