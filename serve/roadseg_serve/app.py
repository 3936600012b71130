"""The settings of the serving graph, and the graph itself in one expression."""

import math
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve
from ray.serve import Application

from roadseg_serve import artefact
from roadseg_serve.ingress import Ingress
from roadseg_serve.postprocess import Postprocess
from roadseg_serve.predict import Model
from roadseg_serve.preprocess import Limits, Preprocess

Positive = Annotated[int, Field(ge=1)]


class StageArgs(BaseModel):
    """How one stage is deployed.

    Attributes:
        num_replicas: processes of this stage.
        num_cpus: CPUs that Ray sets aside for each; a fraction lets stages share one.
        max_ongoing_requests: requests that one replica works on at once; more wait before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_replicas: Positive = 1
    num_cpus: Annotated[float, Field(gt=0)] = 0.25
    max_ongoing_requests: Positive = 8


class ModelArgs(StageArgs):
    """How the model is deployed; its engine has a thread for each whole CPU in `num_cpus`, and at least one.

    Attributes:
        max_batch_size: most frames in one prediction.
        batch_wait_timeout_s: how long a frame waits for others; 0 takes what is there.
    """

    num_cpus: Annotated[float, Field(gt=0)] = 1.0
    max_ongoing_requests: Positive = 16
    max_batch_size: Positive = 8
    batch_wait_timeout_s: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _batches_can_fill(self) -> Self:
        if self.max_ongoing_requests < self.max_batch_size:
            raise ValueError(
                f"max_ongoing_requests ({self.max_ongoing_requests}) is less than max_batch_size "
                f"({self.max_batch_size}): batches would never fill; raise the first or lower the second"
            )
        return self


class AppArgs(BaseModel):
    """All settings of the serving graph; the defaults fit a laptop with two CPUs.

    Attributes:
        model: which model version to serve; see `artefact.resolve`.
        threshold: in [0, 1], instead of the model's own.
        max_upload_bytes: of one uploaded file.
        max_pixels: of one picture, width times height.
        ingress: how the HTTP stage is deployed.
        preprocess: how the decoding stage is deployed.
        predict: how the model is deployed.
        postprocess: how the stage that makes masks is deployed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "bundled:small"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    max_upload_bytes: Positive = 50_000_000
    max_pixels: Positive = 50_000_000
    ingress: StageArgs = StageArgs(max_ongoing_requests=64)
    preprocess: StageArgs = StageArgs()
    predict: ModelArgs = ModelArgs()
    postprocess: StageArgs = StageArgs()

    @property
    def num_cpus(self) -> int:
        """Whole CPUs that the graph asks Ray for."""
        stages = (self.ingress, self.preprocess, self.predict, self.postprocess)
        return math.ceil(sum(stage.num_replicas * stage.num_cpus for stage in stages))


def build(args: AppArgs) -> Application:
    """The serving graph: Ingress -> Preprocess -> Model -> Postprocess.

    Raises:
        ArtefactError: the model cannot be read.
    """
    version = artefact.read(artefact.resolve(args.model))
    return _deploy(serve.ingress()(Ingress), args.ingress).bind(
        _deploy(Preprocess, args.preprocess).bind(
            limits=Limits(max_upload_bytes=args.max_upload_bytes, max_pixels=args.max_pixels),
        ),
        _deploy(Model, args.predict).bind(
            uri=args.model,
            num_threads=max(1, math.floor(args.predict.num_cpus)),
            max_batch_size=args.predict.max_batch_size,
            batch_wait_timeout_s=args.predict.batch_wait_timeout_s,
        ),
        _deploy(Postprocess, args.postprocess).bind(threshold=args.threshold),
        manifest=version.manifest,
        max_upload_bytes=args.max_upload_bytes,
    )


def _deploy(stage: type[Any], args: StageArgs) -> serve.Deployment:
    return serve.deployment(
        num_replicas=args.num_replicas,
        max_ongoing_requests=args.max_ongoing_requests,
        ray_actor_options={"num_cpus": args.num_cpus},
    )(stage)
