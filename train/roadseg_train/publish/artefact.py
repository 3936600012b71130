"""Writes artefacts as docs/artefact.md and docs/artefact.schema.json describe them; shares no code with the reader."""

import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from roadseg_train.data.geometry import SizeRule
from roadseg_train.errors import ArtefactError
from roadseg_train.evaluate.evaluate import Evaluation
from roadseg_train.fit.run import RunRecord
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


def publish(
    store: StoragePath,
    name: str,
    version: str,
    *,
    program: RoadProgram,
    record: RunRecord,
    step: int,
    evaluation: Evaluation,
    int8_frames: QuantisationFrames | None = None,
) -> Quantisation | None:
    """Write `<store>/<name>/<version>/`, the manifest last, and return how well int8 did.

    The program is in eval mode, on the CPU, with a network from `half.round_to_half`, from the checkpoint at `step` of
    the run of `record`. The evaluation is of this program, or of one with the same configuration that was trained with
    the split held out. With `int8_frames`, the version also contains an int8 program if it `is_offered`.

    Raises:
        ArtefactError: name or version is malformed or taken; the evaluation is of another program; programs differ.
        DataError: a frame cannot be read.
        StorageError: the store cannot be written.
    """
    for value, form, kind in ((name, NAME_FORM, "name"), (version, VERSION_FORM, "version")):
        if not form.fullmatch(value):
            raise ArtefactError(f"{value!r} cannot be a {kind}; use lower-case letters, digits and dashes")
    measured_on = _measured_on(evaluation, record, step, program.views)
    path = store / name / version
    taken = f"{path} already exists, and versions never change; choose another --version"
    if MANIFEST in path.names():
        raise ArtefactError(taken)
    rule, threshold = SizeRule.of(record.config), evaluation.threshold
    with temporary_folder() as folder:
        agreement = export_programs(program, folder, multiple_px=rule.multiple_px)
        quantisation = quantise_program(folder, int8_frames, rule=rule, threshold=threshold) if int8_frames else None
        offered = quantisation if quantisation and quantisation.is_offered else None
        names = (ONNX_FILE, TORCH_FILE, *([INT8_FILE] if offered else []))
        files = {}
        for file in names:
            content = (folder / file).read_bytes()
            files[file] = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            path.upload(folder / file, file)  # replaces what an interrupted attempt left
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": version,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git_commit": git_commit(),
        "files": files,
        "input": {"name": INPUT_NAME, "dtype": "uint8", "layout": "BHWC", "channels": "RGB", "size": asdict(rule)},
        "output": {"name": OUTPUT_NAME, "dtype": "float32", "layout": "BHW", "meaning": "road probability"},
        "threshold": threshold,
        "classes": ["not road", "road"],
        "parameters": sum(weights.numel() for weights in program.parameters()),
        "agreement": agreement.model_dump(mode="json"),
        # Absent without int8, so that older readers accept the version.
        **({"quantisation": offered.model_dump()} if offered else {}),
        "metrics": {
            "dataset": evaluation.dataset,
            "split": evaluation.split,
            "measured_on": measured_on,
            "num_images": evaluation.num_images,
            "overall": evaluation.overall.model_dump(),
            "by_drive": {drive: scores.model_dump() for drive, scores in evaluation.by_drive.items()},
        },
        "training": {"fitted_on": record.split, "step": step, "config": record.config.model_dump(mode="json")}
        | program.views.model_dump(mode="json", exclude_defaults=True),
        "libraries": {"python": platform.python_version()}
        | {library: importlib.metadata.version(library) for library in LIBRARIES},
    }
    try:
        (path / MANIFEST).create_text(json.dumps(manifest, indent=2) + "\n")
    except FileExistsError as error:
        raise ArtefactError(taken) from error
    return quantisation


def git_commit() -> str | None:
    """The commit of this code, with a + if there are uncommitted changes; None outside a git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[1]), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603  # fixed arguments

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no", "--", ".") else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _measured_on(evaluation: Evaluation, record: RunRecord, step: int, views: Views) -> str:
    if evaluation.seen_in_training:
        raise ArtefactError(
            f"the network was trained on images of the split {evaluation.split!r}, so the scores on it mean nothing; "
            "evaluate on a split that was held out"
        )
    if evaluation.views != views:
        raise ArtefactError(
            f"the evaluation is {evaluation.views.text()}, but the artefact would be {views.text()}; evaluate and "
            "publish with the same --mirror and --scales"
        )
    if (evaluation.config, evaluation.step) != (record.config, step):
        raise ArtefactError("the evaluation is of another configuration or step; evaluate this run, or the same recipe")
    return "these weights" if evaluation.fitted_on == record.split else "same recipe, split held out"
