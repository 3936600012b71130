"""Print values.schema.json for the chart: the keys of values.yaml and, under `app`, the settings of the serving graph.

    .venv/dev/bin/python helm/schema.py > helm/roadseg/values.schema.json

With it, `helm lint` and `helm install` refuse unknown keys. Types follow from the default values; `MORE` adds what
those cannot express.
"""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from ray.serve._private.constants import DEFAULT_LATENCY_BUCKET_MS

from roadseg_serve.settings import AppArgs

Schema = dict[str, Any]

VALUES = Path(__file__).parent / "roadseg" / "values.yaml"
OPEN_MAP: Schema = {"type": "object"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
MAPS: Schema = {"type": "array", "items": {"type": "object"}}
COUNT: Schema = {"type": "integer", "minimum": 0}

# By path; the first match counts. Kubernetes' own objects stay open, because the API server validates them.
MORE: dict[str, Schema] = {
    "commonLabels": TEXTS,
    "commonAnnotations": TEXTS,
    "*.annotations": TEXTS,
    "monitoring.*.labels": TEXTS,
    "monitoring.podMonitors.interval": {"type": "string", "pattern": "^[0-9]+(s|m)$"},
    "monitoring.rules.*Target": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "monitoring.rules.latencyThresholdMs": {"enum": DEFAULT_LATENCY_BUCKET_MS},
    "*.nodeSelector": TEXTS,
    "*.affinity": OPEN_MAP,
    "*.resources": {
        "type": "object",
        "properties": {"requests": OPEN_MAP, "limits": OPEN_MAP, "claims": MAPS},
        "additionalProperties": False,
    },
    "images.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "images.*.digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "serve.dataPlane": {"enum": ["haproxy", "python"]},
    "serve.upgradeStrategy": {"enum": ["NewCluster", "None"]},
    "*.numCpus": {"type": "integer", "minimum": 1},
    "*.maxReplicas": {"type": "integer", "minimum": 1},
    "training.job.name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?$"},
    # They are passed through a shell.
    "training.job.args": {"type": "array", "items": {"type": "string", "pattern": "^[A-Za-z0-9_./:=,@%+-]+$"}},
    "tracing.samplingRatio": {"type": "number", "minimum": 0, "maximum": 1},
    "httpRoute.hostnames": {"type": "array", "items": {"type": "string"}},
    "extraObjects": {"type": "array", "items": {"type": ["object", "string"]}},
}


def values_schema(values: dict[str, Any]) -> Schema:
    """The schema of values.yaml."""
    app, definitions = app_schema()
    properties = {key: app if key == "app" else schema_of(value, key) for key, value in values.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        # Helm passes `global` to every subchart.
        "properties": properties | {"global": OPEN_MAP},
        "additionalProperties": False,
        "$defs": definitions,
    }


def schema_of(default: Any, path: str) -> Schema:
    """The schema of one value.

    Args:
        default: its value in values.yaml.
        path: of the value, such as serve.workers.numCpus.

    Raises:
        TypeError: the default has no type, such as null.
    """
    for pattern, schema in MORE.items():
        if fnmatchcase(path, pattern):
            return schema
    match default:
        case bool():
            return {"type": "boolean"}
        case int():
            return COUNT
        case str():
            return {"type": "string"}
        case list():
            return MAPS
        case dict():
            properties = {key: schema_of(value, f"{path}.{key}") for key, value in default.items()}
            return {"type": "object", "properties": properties, "additionalProperties": False}
    raise TypeError(f"{path}: its type is unknown; add it to MORE")


def app_schema() -> tuple[Schema, Schema]:
    """The schema of `app`, and the definitions it refers to."""
    schema = _bare(AppArgs.model_json_schema())
    definitions: Schema = schema.pop("$defs")
    return schema, definitions


def _bare(schema: Schema) -> Schema:
    """Remove titles and docstrings, which are written for readers of the Python code."""
    texts = {"title", "description"}
    return {
        key: {name: _bare(part) for name, part in value.items()} if key in ("properties", "$defs") else value
        for key, value in schema.items()
        if key not in texts
    }


if __name__ == "__main__":
    print(json.dumps(values_schema(yaml.safe_load(VALUES.read_text(encoding="utf-8"))), indent=2))
