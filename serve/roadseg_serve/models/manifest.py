"""The manifest of a published model version; a test keeps these classes equal to `docs/artefact.schema.json`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MANIFEST = "manifest.json"  # written last
ONNX_FILE: Literal["model.onnx"] = "model.onnx"
INT8_FILE: Literal["model.int8.onnx"] = "model.int8.onnx"
TORCH_FILE: Literal["model.pt2"] = "model.pt2"

# What to do about files that are missing or damaged.
REMEDY = "give the complete folder of one published version (<store>/<name>/<version>), or publish the model again"

Text = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Record(BaseModel):
    """Part of a manifest: read-only, without unknown keys or type conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class File(Record):
    """One file of a version."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Count


class SizeRule(Record):
    """How a frame is scaled to the program's input size; see `preprocess.fit`."""

    short_side_px: Annotated[int, Field(ge=16)]
    max_long_side_px: Annotated[int, Field(ge=16)]
    multiple_px: Count


class Input(Record):
    """The input of the program."""

    name: Literal["image"]
    dtype: Literal["uint8"]
    layout: Literal["BHWC"]
    channels: Literal["RGB"]
    size: SizeRule


class Output(Record):
    """The output of the program: road probability per input pixel, float32 in [0, 1]."""

    name: Literal["prob"]
    dtype: Literal["float32"]
    layout: Literal["BHW"]
    meaning: Literal["road probability"]


class Agreement(Record):
    """How far the outputs of the exported programs were from those of the trained model."""

    max_abs_difference: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    sizes_BHW: Annotated[list[tuple[Count, Count, Count]], Field(min_length=1)]


class Scores(Record):
    """Quality on a set of images, over labelled pixels."""

    road_iou: Fraction
    mean_image_iou: Fraction
    f1: Fraction
    max_f: Fraction


class Metrics(Record):
    """Quality on a split of a dataset, overall and by drive."""

    dataset: Text
    split: Text
    measured_on: Literal["these weights", "same recipe, split held out"]
    num_images: Count
    overall: Scores
    by_drive: Annotated[dict[str, Scores], Field(min_length=1)]


class Quantisation(Record):
    """How the int8 program was made, and how much quality it lost."""

    calibrated_on: Text
    num_calibration_images: Count
    split: Text
    seen_in_training: bool
    num_images: Count
    road_iou_float32: Fraction
    road_iou_int8: Fraction
    allowed_drop: Fraction


class Manifest(Record):
    """The manifest of one model version; docs/artefact.schema.json describes every field."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    version: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
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
    def _is_complete(self) -> Self:
        missing = {ONNX_FILE, TORCH_FILE} - self.files.keys() | {"python", "torch", "onnx"} - self.libraries.keys()
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} not listed")
        if (self.quantisation is None) == (INT8_FILE in self.files):
            raise ValueError(f"{INT8_FILE} and quantisation belong together, but one is missing")
        return self
