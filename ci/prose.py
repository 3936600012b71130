"""Check that what people read is plain English: README, docs, the chart's pages and the help of both command lines.

    .venv/dev/bin/python ci/prose.py [FILE...]     # a file per argument, or everything

proselint runs with its own rules and with the words of prose.toml. Code, links and addresses are not prose.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import typer
from proselint.checks import __register__ as CHECKS
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check
from proselint.registry.checks.types import PreferredForms
from proselint.tools import LintFile

import roadseg_serve.cli
import roadseg_train.cli

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/*.md", "docs/decisions/*.md", "helm/roadseg/README.md", "k8s/README.md")
MAX_WORDS = 35
NOT_PROSE = re.compile(r"```.*?```|`[^`]+`|<!--.*?-->|\]\([^)]*\)|https?://\S+", re.DOTALL)
# Where a sentence ends, with or without a full stop: blank lines, items of lists, cells of tables, headings.
ENDS = re.compile(r"(?<=[.!?:])\s+|\n\s*\n|\n\s*(?:[-*#]+|\d+\.)\s|\|")


def main() -> None:
    """Print every finding with its place; exit with 1 if there is one."""
    rules = tomllib.loads((ROOT / "ci" / "prose.toml").read_text())
    registry = CheckRegistry()
    registry.register_many(CHECKS)
    # A phrase may be wrapped.
    words = {pattern.replace(" ", r"\s+"): better for pattern, better in rules["words"].items()}
    registry.register(Check(PreferredForms(words), path="words", message="'{1}': write {0}"))
    config = {**DEFAULT, "checks": {**rules["checks"], **DEFAULT["checks"], **rules["checks"], "words": True}}
    pages = [Path(name) for name in sys.argv[1:]] or [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
    texts = {str(page): NOT_PROSE.sub(_blank, page.read_text()) for page in pages}
    if not sys.argv[1:]:
        texts |= {f"{name} --help": text for name, text in _helps()}
    findings = [
        f"{name}:{line}: {' '.join(message.split())}"
        for name, text in texts.items()
        for line, message in sorted(
            [
                *((result.pos[0], result.check_result.message) for result in LintFile(name, text).lint(config)),
                *_long_sentences(text),
            ]
        )
    ]
    sys.exit("\n".join(findings) or 0)


def _blank(code: re.Match[str]) -> str:
    """Nothing for a block of code, one mark within a line, so that lines and sentences keep their length."""
    is_block = code[0].startswith(("```", "<!--"))
    return ("" if is_block else "`") + "\n" * code[0].count("\n")


def _long_sentences(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for end in [*(match.end() for match in ENDS.finditer(text)), len(text)]:
        num_words = len(text[start:end].split())
        if num_words > MAX_WORDS:
            yield text.count("\n", 0, start) + 1, f"a sentence of {num_words} words: split it"
        start = end


def _helps() -> Iterator[tuple[str, str]]:
    """Names and help texts of both command lines."""
    for name, module in (("roadseg-serve", roadseg_serve.cli), ("roadseg-train", roadseg_train.cli)):
        group = typer.main.get_command(next(app for app in vars(module).values() if isinstance(app, typer.Typer)))
        commands = getattr(group, "commands", {})
        for command in (group, *commands.values()):
            texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
            yield f"{name} {command.name or ''}", "\n\n".join(text for text in texts if text)


if __name__ == "__main__":
    main()
