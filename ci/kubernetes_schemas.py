"""Write the JSON schemas for kubeconform into a folder, one file for each kind.

    python ci/kubernetes_schemas.py FOLDER SWAGGER_JSON CRD_YAML...

The schemas of Kubernetes come from its OpenAPI description, the others from CustomResourceDefinitions. They are
stricter than an API server: a field that it would silently drop is an error.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
KEPT = {"type", "enum", "required", "pattern", "additionalProperties"} | {
    f"{bound}{what}" for bound in ("min", "max") for what in ("imum", "Items", "Length", "Properties")
}
NESTED = {"items", "additionalProperties"}


def main(folder: Path, swagger: Path, crds: list[Path]) -> None:
    """Write all files."""
    folder.mkdir(parents=True, exist_ok=True)
    definitions = json.loads(swagger.read_text(encoding="utf-8"))["definitions"]
    write(folder / "definitions.json", {"definitions": {name: strict(part) for name, part in definitions.items()}})
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            write(folder / file_name(**kind), {"$ref": f"definitions.json#/definitions/{name}"})
    for path in crds:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"]["metadata"] = {"$ref": f"#/definitions/{METADATA}"}
            name = file_name(group=spec["group"], version=version["name"], kind=spec["names"]["kind"])
            write(folder / name, strict(schema))


def file_name(group: str, version: str, kind: str) -> str:
    """The name that kubeconform writes as {{.ResourceKind}}{{.KindSuffix}}.json, with the group's first word."""
    return "-".join(part.lower() for part in (kind, group.split(".", maxsplit=1)[0], version) if part) + ".json"


def strict(schema: Schema) -> Schema:
    """A JSON schema that allows only the named fields, and numbers where text may be a number."""
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if schema.get("description", "").startswith("Quantity is"):
        return {"type": ["number", "string"]}
    result = {key: value for key, value in schema.items() if key in KEPT}
    result |= {key: strict(value) for key, value in schema.items() if key in NESTED and isinstance(value, dict)}
    if "$ref" in schema:
        result["$ref"] = f"definitions.json{schema['$ref']}"
    if "properties" in schema:
        result["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        result.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    return result


def write(path: Path, schema: Schema) -> None:
    """Write one schema."""
    path.write_text(json.dumps(schema), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(path) for path in sys.argv[3:]])
