"""Write the tables of the docs whose numbers come from the presets and from the bundled models' manifests.

    .venv/dev/bin/python docs/tables.py            # rewrite them
    .venv/dev/bin/python docs/tables.py --check    # fail if one is out of date

A table stands between `<!-- table NAME, by docs/tables.py -->` and `<!-- end -->`.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from roadseg_train.config import PRESETS

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "serve" / "roadseg_serve" / "models" / "bundled"
SPAN = re.compile(r"(<!-- table (\S+), by docs/tables.py -->\n).*?(<!-- end -->)", re.DOTALL)


def main(
    *, check: Annotated[bool, typer.Option("--check", help="Only say which pages are out of date.")] = False
) -> None:
    """Bring every generated table up to date."""
    stale = [(page, text) for page in pages() if (text := SPAN.sub(render, page.read_text())) != page.read_text()]
    if check and stale:
        sys.exit(f"error: run docs/tables.py; out of date: {', '.join(page.name for page, _ in stale)}")
    for page, text in stale:
        page.write_text(text)


def pages() -> Iterator[Path]:
    """Every page that may have a table."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def render(span: re.Match[str]) -> str:
    """One span with its table made again; a name that does not exist is a KeyError."""
    return span[1] + TABLES[span[2]]() + span[3]


def presets() -> str:
    """The network and the schedule of each preset."""
    rows = []
    for name, make in PRESETS.items():
        config = make()
        num_coarse = round(config.num_steps * config.coarse_share)
        rows.append(
            (
                f"`{name}`",
                ", ".join(map(str, config.widths)),
                f"{config.short_side_px} px",
                f"{config.num_steps:,}" + (f", the first {num_coarse:,} coarse" if num_coarse else ""),
                f"{config.batch_size} crops {config.crop_width_px}x{config.crop_height_px}",
            )
        )
    return table(("preset", "channels by level", "input, short side", "steps", "batch"), rows)


def models() -> str:
    """Size of the bundled models."""
    rows = [
        (
            f"`bundled:{name}`",
            f"{made['parameters'] / 1e6:.1f} million",
            f"{sum(file['size_bytes'] for file in made['files'].values()) / 1e6:.1f} MB",
            f"{made['files']['model.onnx']['size_bytes'] / 1e6:.1f} MB",
            f"{made['files']['model.int8.onnx']['size_bytes'] / 1e6:.1f} MB",
        )
        for name, made in manifests().items()
    ]
    return table(("model", "weights", "all programs", "`model.onnx`", "`model.int8.onnx`"), rows)


def known_blocks() -> str:
    """Scores of both recipes on held-out blocks of the drives they were fitted on."""
    scores = {
        name: {"all": made["metrics"]["overall"], **made["metrics"]["by_drive"]} for name, made in manifests().items()
    }
    columns = {"road IoU": "road_iou", "mean image IoU": "mean_image_iou", "F1": "f1", "KITTI MaxF": "max_f"}
    names = ", ".join(scores)
    rows = [
        (drive, *(", ".join(f"{of[drive][key]:.3f}" for of in scores.values()) for key in columns.values()))
        for drive in scores["small"]
    ]
    return table(("drive", *(f"{heading}: {names}" for heading in columns)), rows)


def int8() -> str:
    """What the bundled int8 programs lose."""
    rows = [
        (
            f"`bundled:{name}`",
            f"{scored['road_iou_float32']:.4f}",
            f"{scored['road_iou_int8']:.4f}",
            f"{scored['num_images']} of `{scored['split']}`",
            "yes" if scored["seen_in_training"] else "no",
        )
        for name, made in manifests().items()
        for scored in (made["quantisation"],)
    ]
    return table(("model", "road IoU, float32", "road IoU, int8", "pictures", "seen in training"), rows)


def manifests() -> dict[str, Any]:
    """The manifest of each bundled model, by its short name, the smallest model first."""
    found = [json.loads(path.read_text()) for path in BUNDLED.glob("*/*/manifest.json")]
    return {made["name"].removeprefix("road-"): made for made in sorted(found, key=lambda made: made["parameters"])}


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of a Markdown table."""
    lines = [f"| {' | '.join(cells)} |\n" for cells in (headings, *rows)]
    lines.insert(1, "|" + "---|" * len(headings) + "\n")
    return "".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "presets": presets,
    "models": models,
    "known-blocks": known_blocks,
    "int8": int8,
}


if __name__ == "__main__":
    typer.run(main)
