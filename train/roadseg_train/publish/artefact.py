"""The writer of artefacts: docs/artefact.md and its schema say what they hold. The reader shares no code with it."""

import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from roadseg_train.data.geometry import SizeRule
from roadseg_train.errors import ArtefactError
from roadseg_train.evaluate.evaluate import Evaluation
from roadseg_train.fit.run import Member
from roadseg_train.network.model import RoadProgram
from roadseg_train.network.views import Views
from roadseg_train.publish.export import INPUT_NAME, ONNX_FILE, OUTPUT_NAME, TORCH_FILE, export_programs
from roadseg_train.publish.quantise import INT8_FILE, Quantisation, QuantisationFrames, quantise_program
from roadseg_train.storage.local import temporary_folder
from roadseg_train.storage.path import StoragePath

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
NAME_FORM = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
VERSION_FORM = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
LIBRARIES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow", "ray")


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes:
        place: of the version.
        quantisation: what int8 lost, where it was wanted; the version has that program if it `is_offered`.
    """

    place: StoragePath
    quantisation: Quantisation | None


def publish(
    store: StoragePath,
    name: str,
    version: str,
    *,
    program: RoadProgram,
    members: Sequence[Member],
    fitted_on: str,
    evaluation: Evaluation,
    int8_frames: QuantisationFrames | None = None,
) -> Published:
    """Write `<store>/<name>/<version>/`, the manifest last.

    Args:
        store: the place of all artefacts.
        name: the model's name.
        version: never used before.
        program: in eval mode, on the CPU, of networks that `half.halve` made.
        members: where each of its networks came from.
        fitted_on: name of the split that they were fitted on.
        evaluation: of this program, or of one made by the same configurations with the split held out.
        int8_frames: what to make an int8 program by too; it is published if it loses little enough.

    Raises:
        ArtefactError: the name or version is malformed or taken, the evaluation is not one that may stand for this
            program, or the exported programs do not agree.
        DataError: a frame cannot be read.
        StorageError: the store cannot be written.
    """
    for value, form, kind in ((name, NAME_FORM, "name"), (version, VERSION_FORM, "version")):
        if not form.fullmatch(value):
            raise ArtefactError(f"{value!r} cannot be a {kind}; use lower-case letters, digits and dashes")
    measured_on = _measured_on(evaluation, members, fitted_on, program.views)
    place = store / name / version
    taken = f"{place} is published already and a version is never re-used; choose another --version"
    if MANIFEST in place.names():
        raise ArtefactError(taken)
    rule, threshold = SizeRule.of(members[0].config), evaluation.threshold
    with temporary_folder() as folder:
        agreement = export_programs(program, folder, multiple_px=rule.multiple_px)
        quantisation = quantise_program(folder, int8_frames, rule=rule, threshold=threshold) if int8_frames else None
        offered = quantisation if quantisation and quantisation.is_offered else None
        names = (ONNX_FILE, TORCH_FILE, *([INT8_FILE] if offered else []))
        files = {file: _describe(folder / file) for file in names}
        for file in files:
            place.upload(folder / file, file)  # over what an attempt that was cut short left there
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": version,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git_commit": git_commit(),
        "files": files,
        "input": {
            "name": INPUT_NAME,
            "dtype": "uint8",
            "layout": "BHWC",
            "channels": "RGB",
            "size": asdict(rule),
        },
        "output": {"name": OUTPUT_NAME, "dtype": "float32", "layout": "BHW", "meaning": "road probability"},
        "threshold": threshold,
        "classes": ["not road", "road"],
        "parameters": sum(weights.numel() for weights in program.parameters()),
        "agreement": agreement.model_dump(mode="json"),
        # Left out where there is none, so that readers from before it was known take the version.
        **({"quantisation": offered.model_dump()} if offered else {}),
        "metrics": {
            "dataset": evaluation.dataset,
            "split": evaluation.split,
            "measured_on": measured_on,
            "num_images": evaluation.num_images,
            "overall": evaluation.overall.model_dump(),
            "by_drive": {drive: scores.model_dump() for drive, scores in evaluation.by_drive.items()},
        },
        "training": _describe_training(members, fitted_on, program.views),
        "libraries": {"python": platform.python_version()}
        | {library: importlib.metadata.version(library) for library in LIBRARIES},
    }
    try:
        (place / MANIFEST).create_text(json.dumps(manifest, indent=2) + "\n")
    except FileExistsError as error:
        raise ArtefactError(taken) from error
    return Published(place, quantisation)


def git_commit() -> str | None:
    """The commit of this code, with a + where there are uncommitted changes; None outside a git checkout."""
    here = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603  # fixed words

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no", "--", ".") else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _measured_on(evaluation: Evaluation, members: Sequence[Member], fitted_on: str, views: Views) -> str:
    if evaluation.seen_in_training:
        raise ArtefactError(
            f"the evaluation's split {evaluation.split!r} was fitted on, so its scores say nothing; "
            "evaluate on a split that was held out"
        )
    if evaluation.split == "random-heldout":
        raise ArtefactError(
            "the evaluation's split 'random-heldout' is there to show what a leak pretends; evaluate on 'heldout'"
        )
    if evaluation.views != views or len(evaluation.members) != len(members):
        raise ArtefactError(
            f"the evaluation is of {_kind(len(evaluation.members), evaluation.views)}, to be published is "
            f"{_kind(len(members), views)}; evaluate and publish with the same number of --run, --mirror and --scales"
        )
    if [(m.config, m.step) for m in evaluation.members] != [(m.config, m.step) for m in members]:
        raise ArtefactError(
            "the evaluation is of another configuration or step; evaluate the same recipe to its end, and several in "
            "the same order"
        )
    return "these weights" if evaluation.fitted_on == fitted_on else "same recipe, split held out"


def _kind(num_networks: int, views: Views) -> str:
    return f"{num_networks} network{'s' if num_networks > 1 else ''} {views.text()}"


def _describe_training(members: Sequence[Member], fitted_on: str, views: Views) -> dict[str, Any]:
    first, *others = [{"step": member.step, "config": member.config.model_dump(mode="json")} for member in members]
    training = {"fitted_on": fitted_on, **first}
    if others:
        training["others"] = others
    return training | views.model_dump(mode="json", exclude_defaults=True)


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "size_bytes": path.stat().st_size}
