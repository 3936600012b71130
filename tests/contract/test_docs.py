"""What the documents list is what is there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from roadseg_serve.errors import PROBLEMS
from roadseg_serve.http.negotiate import OFFERS
from roadseg_serve.http.openapi import example_findings
from roadseg_serve.messages import MEDIA_TYPES
from roadseg_serve.models import artefact

DOCS = Path(__file__).parents[2] / "docs"


def fields(schema: dict[str, Any]) -> Iterator[str]:
    """Names of all properties of a schema, at any depth."""
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from fields(inner)
    for definition in schema.get("$defs", {}).values():
        yield from fields(definition)


def test_every_field_is_described() -> None:
    text = (DOCS / "artefact.md").read_text()
    names = set(fields(json.loads((DOCS / "artefact.schema.json").read_text())))
    assert len(names) > 30
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_the_api_page_has_every_format_and_every_error() -> None:
    text = (DOCS / "api.md").read_text()
    for form, media_type in MEDIA_TYPES.items():
        assert f"| `{form}` | {f'`{media_type}`' if form in OFFERS else ''}" in text
    for problem in PROBLEMS.values():
        assert f"| {int(problem.status)} | `{problem.type}` | {problem.remedy} |" in text


def test_the_answer_on_the_api_page_is_that_of_the_description(red_artefact: Path) -> None:
    page = json.loads((DOCS / "api.md").read_text().split("```json\n")[1].split("```")[0])
    made = example_findings(artefact.read(red_artefact).manifest)
    page["model"] = made["model"]
    assert made["mask"]["png_base64"].startswith(page["mask"].pop("png_base64").removesuffix("…"))
    del made["mask"]["png_base64"]
    assert page == made


def test_the_readme_names_every_module() -> None:
    root = DOCS.parent
    text = (root / "README.md").read_text()
    for package in (root / "train" / "roadseg_train", root / "serve" / "roadseg_serve"):
        tree = text.partition(f"{package.parent.name}/{package.name}/\n")[2].partition("\n\n")[0]
        modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
        assert [module for module in sorted(modules) if f"  {module} " not in tree] == []
