"""The reader of published model versions: find the folder, verify every file, only then hand it out.

`Manifest` states the contract as this room reads it; `docs/artefact.schema.json` states it for everyone, and
a test holds the two together. The writer shares no code with this module.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from roadseg_serve.errors import ArtefactError

MANIFEST = "manifest.json"
INT8_FILE: Literal["model.int8.onnx"] = "model.int8.onnx"

# What `bundled:<key>` means: the versions that ship with this package.
BUNDLED = {"small": "road-small/1"}
BUNDLED_FOLDER = Path(__file__).parent / "bundled"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Version = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Text = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Record(BaseModel):
    """A part of the manifest: read-only, no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class File(Record):
    """One file of the version."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Count


class SizeRule(Record):
    """How a frame is brought to the program's input size; see `preprocess.fit`."""

    short_side_px: Annotated[int, Field(ge=16)]
    max_long_side_px: Annotated[int, Field(ge=16)]
    multiple_px: Count


class Input(Record):
    """What the program takes."""

    name: Literal["image"]
    dtype: Literal["uint8"]
    layout: Literal["BHWC"]
    channels: Literal["RGB"]
    size: SizeRule


class Output(Record):
    """What the program gives: road probability per input pixel, float32 in [0, 1]."""

    name: Literal["prob"]
    dtype: Literal["float32"]
    layout: Literal["BHW"]
    meaning: Literal["road probability"]


class Agreement(Record):
    """How far the exported programs were from the model they came from."""

    max_abs_difference: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    sizes_BHW: Annotated[list[tuple[Count, Count, Count]], Field(min_length=1)]


class Scores(Record):
    """Quality on one set of images, over labelled pixels."""

    road_iou: Fraction
    mean_image_iou: Fraction
    f1: Fraction
    max_f: Fraction


class Metrics(Record):
    """What was measured, on which split, by which model."""

    dataset: Text
    split: Text
    measured_on: Literal["these weights", "same recipe, split held out"]
    num_images: Count
    overall: Scores
    by_drive: Annotated[dict[str, Scores], Field(min_length=1)]


class Quantisation(Record):
    """How the int8 program was made, and what it lost."""

    calibrated_on: Text
    num_calibration_images: Count
    split: Text
    seen_in_training: bool
    num_images: Count
    road_iou_float32: Fraction
    road_iou_int8: Fraction
    allowed_drop: Fraction


class Manifest(Record):
    """manifest.json of one model version; every field is described in docs/artefact.schema.json."""

    schema_version: Literal[1]
    name: Name
    version: Version
    created: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    git_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}\+?$")] | None
    files: dict[Literal["model.onnx", "model.pt2", "model.int8.onnx"], File]
    input: Input
    output: Output
    threshold: Fraction
    classes: tuple[Literal["not road"], Literal["road"]]
    parameters: Count
    agreement: Agreement
    quantisation: Quantisation | None = None
    metrics: Metrics
    training: dict[str, Any]
    libraries: dict[str, str]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        missing = {"model.onnx", "model.pt2"} - self.files.keys()
        missing |= {"python", "torch", "onnx"} - self.libraries.keys()
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} not listed")
        if (self.quantisation is None) == (INT8_FILE in self.files):
            raise ValueError(f"{INT8_FILE} and quantisation go together, and one is missing")
        return self


@dataclass(frozen=True)
class Artefact:
    """A verified model version on this machine.

    Attributes:
        folder: where its files lie.
        manifest: what it says about itself.
    """

    folder: Path
    manifest: Manifest

    @property
    def onnx_path(self) -> Path:
        """The program for CPU engines."""
        return self.folder / "model.onnx"

    @property
    def int8_path(self) -> Path | None:
        """The same in int8, where it was published."""
        return self.folder / INT8_FILE if INT8_FILE in self.manifest.files else None

    @property
    def torch_path(self) -> Path:
        """The program for PyTorch."""
        return self.folder / "model.pt2"


def resolve(uri: str) -> Path:
    """Find the folder that a model URI names.

    Args:
        uri: `bundled:<key>`, a folder path, or `file://` and an absolute folder path.

    Returns:
        The absolute folder; `read` says whether it holds a model.

    Raises:
        ArtefactError: unknown key or kind of URI.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return Path(uri).expanduser().absolute()
    if scheme == "bundled":
        if rest not in BUNDLED:
            raise ArtefactError(f"no bundled model {rest!r}; there is: {', '.join(BUNDLED)}")
        return BUNDLED_FOLDER / BUNDLED[rest]
    if scheme == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ArtefactError(f"{uri} names no folder of this machine; write file:///absolute/path")
        return Path(unquote(parts.path))
    raise ArtefactError(f"cannot read a model from {uri!r}; give bundled:small, a folder, or file:///absolute/path")


def read(folder: Path) -> Artefact:
    """Verify a model version: manifest, contract, size and sha256 of every file. Nothing is loaded before.

    Args:
        folder: the version's folder, as `resolve` gives it.

    Raises:
        ArtefactError: something is missing or differs; the text says what, and what to do.
    """
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise ArtefactError(
            f"no complete model in {folder}: {MANIFEST} is missing, and it is written last; "
            "give the folder of one published version (<store>/<name>/<version>)"
        )
    try:
        manifest = Manifest.model_validate_json(manifest_path.read_bytes())
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ArtefactError(
            f"{manifest_path} does not keep the artefact contract ({faults}); "
            "publish the model again with a matching roadseg-train"
        ) from error
    for file_name, file in manifest.files.items():
        _verify(folder / file_name, file)
    return Artefact(folder=folder, manifest=manifest)


def _verify(path: Path, file: File) -> None:
    remedy = "copy the version again from its store, or publish it again"
    if not path.is_file():
        raise ArtefactError(f"{path} is missing though the manifest lists it; {remedy}")
    size_bytes = path.stat().st_size
    if size_bytes != file.size_bytes:
        raise ArtefactError(f"{path} has {size_bytes} bytes, the manifest says {file.size_bytes}; {remedy}")
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != file.sha256:
        raise ArtefactError(f"{path} is damaged: its sha256 is not the manifest's; {remedy}")
