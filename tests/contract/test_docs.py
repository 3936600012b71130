"""What the documents list is what is there."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

import roadseg_serve.cli
import roadseg_train.cli
from roadseg_serve.engines.engine import EngineName
from roadseg_serve.errors import RequestError
from roadseg_serve.http.negotiate import OFFERS
from roadseg_serve.http.openapi import example_findings
from roadseg_serve.messages import MEDIA_TYPES
from roadseg_serve.models import artefact

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *DOCS.rglob("*.md"), ROOT / "k8s" / "README.md", ROOT / "helm" / "roadseg" / "README.md"]


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
    for problem in (kind.problem for kind in RequestError.__subclasses__()):
        assert f"| {int(problem.status)} | `{problem.type}` | {problem.remedy} |" in text


def test_the_answer_on_the_api_page_is_that_of_the_description(red_artefact: Path) -> None:
    page = json.loads((DOCS / "api.md").read_text().split("```json\n")[1].split("```")[0])
    made = example_findings(artefact.read(red_artefact).manifest)
    page["model"] = made["model"]
    assert made["mask"]["png_base64"].startswith(page["mask"].pop("png_base64").removesuffix("…"))
    del made["mask"]["png_base64"]
    assert page == made


def test_readme_and_map_list_every_folder() -> None:
    readme, architecture = ((ROOT / page).read_text() for page in ("README.md", "docs/architecture.md"))
    tree = readme.split("```\n")[-2]
    tracked = subprocess.run(["git", "ls-files", "*/*"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    top = {path.split("/")[0] for path in tracked.split()}
    assert sorted(re.findall(r"^(\w+)/", tree, re.M)) == sorted(name for name in top if not name.startswith("."))
    for package in (ROOT / "train" / "roadseg_train", ROOT / "serve" / "roadseg_serve"):
        folders = {path.parent.name for path in package.glob("*/__init__.py")}
        files = {path.stem for path in package.glob("*.py")}
        (line,) = (line for line in tree.splitlines() if f" {package.name}: " in line)
        assert sorted(line.split(": ")[1].split(", ")) == sorted(folders)
        rooms = architecture.split(f"/{package.name}`\n")[1].split("\n## ")[0]
        assert set(re.findall(r"^\| `(\w+)/` \|", rooms, re.M)) == folders
        assert set(re.findall(r"^\| `(\w+)` \|", rooms, re.M)) <= files


@pytest.mark.parametrize(("page", "max_lines"), [("README.md", 120), ("docs/training.md", 150)])
def test_pages_stay_short(page: str, max_lines: int) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= max_lines


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        text = page.read_text()
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
            if target.startswith("http"):
                continue
            path = page.parent / target if target else page
            if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
                broken.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert broken == []


def anchors(text: str) -> set[str]:
    """What GitHub makes of headings: no punctuation, dashes for spaces."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)}


COMMANDS = {
    "ci/serve": (roadseg_serve.cli, ["run"]),
    "roadseg-serve": (roadseg_serve.cli, []),
    "ci/train": (roadseg_train.cli, []),
    "roadseg-train": (roadseg_train.cli, []),
}


def test_the_command_lines_take_every_command() -> None:
    """Each is parsed with all its options, and not run."""
    num_parsed = 0
    for page in PAGES:
        shell = "".join(re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M)).replace("\\\n", " ")
        for line in shell.splitlines():
            words = shlex.split(re.sub(r" [<|>].*", "", line), comments=True)
            start = next((number for number, word in enumerate(words) if word in COMMANDS), None)
            if start is None or (words[start] == "ci/serve" and "--observe" in words):  # that one is the script's own
                continue
            module, before = COMMANDS[words[start]]
            name, *arguments = [*before, *words[start + 1 :]]
            app = next(value for value in vars(module).values() if isinstance(value, typer.Typer))
            command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]  # a group
            command.make_context(name, arguments)  # a usage error fails the test
            num_parsed += 1
    assert num_parsed > 20


def test_every_engine_is_on_its_page() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \| (?:`model|`torch`)", (DOCS / "engines.md").read_text(), re.M)
    assert sorted(listed) == sorted(["auto", *get_args(EngineName)])


def test_tables_are_current() -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "tables.py", "--check"], check=True)


def test_the_linter_reads_prose_and_nothing_else(tmp_path: Path) -> None:
    pages = {
        "plain.md": "Requests without a valid key get 401.",
        "code.md": "Code is not prose: `of it`, `is waited for`.\n\n```\nof it\n```\n",
        "words.md": "A server that stops is waited\nfor.",
        "long.md": "\n\n" + "no road is like any other road " * 6,
        "twice.md": "The the road.",
    }
    for name, text in pages.items():
        (tmp_path / name).write_text(text)
    lint = [sys.executable, str(ROOT / "ci" / "prose.py")]
    found = subprocess.run([*lint, *(tmp_path / name for name in pages)], check=False, capture_output=True, text=True)
    assert found.returncode == 1
    assert re.findall(rf"{tmp_path}/(.+?): .*(waited for|sentence of 42 words|repeated)", found.stderr) == [
        ("words.md:1", "waited for"),
        ("long.md:3", "sentence of 42 words"),
        ("twice.md:1", "repeated"),
    ]
    assert len(found.stderr.splitlines()) == 3
    subprocess.run([*lint, tmp_path / "plain.md", tmp_path / "code.md"], check=True)
