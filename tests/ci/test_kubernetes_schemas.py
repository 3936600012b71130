import jsonschema
import pytest

from ci.kubernetes_schemas import file_name, strict

SCHEMA = {
    "description": "Docs.",
    "type": "object",
    "required": ["port"],
    "properties": {
        "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "memory": {"description": "Quantity is a fixed-point number.", "type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "open": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
    },
}


@pytest.mark.parametrize(
    "item",
    [
        {"port": 80},
        {"port": "http", "memory": 4},
        {"port": 80, "memory": "4Gi", "labels": {"any": "text"}},
        {"port": 80, "parts": [{"name": "a"}], "open": {"any": "thing"}},
    ],
)
def test_accepts_what_an_api_server_accepts(item: object) -> None:
    jsonschema.validate(item, strict(SCHEMA))


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"port": 1.5},
        {"port": 80, "prot": 1},
        {"port": 80, "parts": [{"nam": "a"}]},
        {"port": 80, "labels": {"a": 1}},
    ],
)
def test_refuses_what_an_api_server_refuses_or_drops(item: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(item, strict(SCHEMA))


def test_references_point_to_the_file_of_all_definitions() -> None:
    assert strict({"$ref": "#/definitions/a.b.Pod"}) == {"$ref": "definitions.json#/definitions/a.b.Pod"}


@pytest.mark.parametrize(
    ("group", "kind", "name"),
    [
        ("", "Pod", "pod-v1.json"),
        ("ray.io", "RayJob", "rayjob-ray-v1.json"),
        ("apps", "Deployment", "deployment-apps-v1.json"),
    ],
)
def test_files_are_named_as_kubeconform_looks_for_them(group: str, kind: str, name: str) -> None:
    assert file_name(group=group, version="v1", kind=kind) == name
