"""All settings of the serving graph: one typed tree that the command line, a Serve config file and the chart share.

Fields that Ray Serve has too keep Ray Serve's names.
"""

import math
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from roadseg_serve.engines.engine import EngineName
from roadseg_serve.errors import SettingsError

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# Each check says anew which model is there (see `ModelMetrics.note_loaded`), and Ray exports every ten seconds.
MODEL_HEALTH_CHECK_PERIOD_S = 5.0


class Settings(BaseModel):
    """A part of the settings: read-only, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoscalingConfig(Settings):
    """How many replicas a stage has, by its load.

    Attributes:
        min_replicas: fewest; 0 lets the stage go when nobody asks, and the first request then waits for its start.
        max_replicas: most.
        initial_replicas: at the start; default: the fewest.
        target_ongoing_requests: requests, waiting or worked on, for which there shall be one replica.
        upscale_delay_s: how long there must be too much to do before replicas are added.
        downscale_delay_s: how long there must be too little before they are taken away.
        look_back_period_s: over how long the load is averaged; it is reported every ten seconds.
    """

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Positive
    initial_replicas: Annotated[int, Field(ge=0)] | None = None
    target_ongoing_requests: Annotated[float, Field(gt=0)]
    upscale_delay_s: Seconds = 10.0
    downscale_delay_s: Seconds = 300.0
    look_back_period_s: Annotated[float, Field(gt=10)] = 30.0

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        initial = self.min_replicas if self.initial_replicas is None else self.initial_replicas
        if not self.min_replicas <= initial <= self.max_replicas:
            raise ValueError(
                f"min_replicas ({self.min_replicas}), initial_replicas ({initial}) and max_replicas "
                f"({self.max_replicas}) must not fall in this order"
            )
        return self


class StageArgs(Settings):
    """How one stage is deployed.

    Attributes:
        num_replicas: processes of this stage; not together with `autoscaling_config`.
        autoscaling_config: their number by load instead.
        num_cpus: CPUs that Ray sets aside for each; a fraction lets stages share one.
        max_ongoing_requests: requests that one replica works on at once; more wait before it.
        max_queued_requests: of each caller, that may wait before the stage; further ones are refused. -1 is no limit.
        max_replicas_per_node: spreads the replicas over nodes.
        max_surge_percent: how many replicas of a new version may be there beside the old ones while they are replaced.
            0 needs no room for more, and lets a stage of one replica pause meanwhile.
        graceful_shutdown_timeout_s: how long a replica that is taken away may finish its requests.
    """

    num_replicas: Positive | None = None
    autoscaling_config: AutoscalingConfig | None = None
    num_cpus: Annotated[float, Field(gt=0)] = 0.25
    max_ongoing_requests: Positive = 8
    max_queued_requests: Annotated[int, Field(ge=-1)] = -1
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | None = None
    max_surge_percent: Annotated[int, Field(ge=0, le=100)] = 100
    graceful_shutdown_timeout_s: Seconds = 20.0

    @model_validator(mode="after")
    def _has_one_rule_for_replicas(self) -> Self:
        scaling = self.autoscaling_config
        if scaling is None:
            return self
        if self.num_replicas is not None:
            raise ValueError("give num_replicas or autoscaling_config, not both")
        if scaling.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError(
                f"target_ongoing_requests ({scaling.target_ongoing_requests:g}) is more than max_ongoing_requests "
                f"({self.max_ongoing_requests}): a replica never has so many, so it would scale too late; "
                "lower the first or raise the second"
            )
        return self

    @property
    def most_replicas(self) -> int:
        """Replicas at the most, apart from those that replace others."""
        return self.num_replicas or (self.autoscaling_config.max_replicas if self.autoscaling_config else 1)

    def deployment_options(self) -> dict[str, Any]:
        """What `serve.deployment` is told of this stage."""
        options = self.model_dump(include=set(StageArgs.model_fields) - {"num_cpus"}, exclude_none=True)
        return options | {"ray_actor_options": {"num_cpus": self.num_cpus}}


class ModelArgs(StageArgs):
    """How the model is deployed; its engine has a thread for each whole CPU in `num_cpus`, and at least one.

    Attributes:
        engine: what computes; `auto` is torch on a GPU, else OpenVINO, else ONNX Runtime.
        num_gpus: GPUs that Ray sets aside for each replica; a fraction lets replicas share one.
        max_batch_size: most frames in one prediction.
        batch_wait_timeout_s: how long a frame waits for others; 0 takes what is there.
        max_concurrent_batches: predictions at once; the next one gathers its frames meanwhile.
    """

    engine: EngineName | Literal["auto"] = "auto"
    num_gpus: Annotated[float, Field(ge=0, le=1)] = 0
    num_cpus: Annotated[float, Field(gt=0)] = 1.0
    max_ongoing_requests: Positive = 16
    max_queued_requests: Annotated[int, Field(ge=-1)] = 128
    max_batch_size: Positive = 8
    batch_wait_timeout_s: Seconds = 0.0
    max_concurrent_batches: Positive = 1

    @property
    def num_threads(self) -> int:
        """Threads of the engine."""
        return max(1, math.floor(self.num_cpus))

    def deployment_options(self) -> dict[str, Any]:
        """What `serve.deployment` is told of the model."""
        return super().deployment_options() | {
            "health_check_period_s": MODEL_HEALTH_CHECK_PERIOD_S,
            "ray_actor_options": self.model_dump(include={"num_cpus", "num_gpus"}),
        }

    @model_validator(mode="after")
    def _gpu_is_used(self) -> Self:
        if self.num_gpus and self.engine not in ("auto", "torch"):
            raise ValueError(
                f"the engine {self.engine} computes on the CPU, so num_gpus ({self.num_gpus:g}) would lie idle; "
                "set it to 0, or engine to torch"
            )
        return self

    @model_validator(mode="after")
    def _batches_can_fill(self) -> Self:
        at_once = self.max_batch_size * self.max_concurrent_batches
        if self.max_ongoing_requests < at_once:
            raise ValueError(
                f"max_ongoing_requests ({self.max_ongoing_requests}) is less than max_batch_size "
                f"({self.max_batch_size}) times max_concurrent_batches ({self.max_concurrent_batches}): "
                f"batches would never fill; raise the first to {at_once} or lower the others"
            )
        return self


class BackpressureConfig(Settings):
    """What a client hears when a stage cannot take more.

    Attributes:
        status_code: 503 says that the server is at its limit; 429, that the client asks too much.
        retry_after_s: when it may try again.
    """

    status_code: Literal[503, 429] = 503
    retry_after_s: Positive = 1


class GateArgs(Settings):
    """Who may ask, how often, and for how long: docs/security.md.

    Attributes:
        api_keys_file: of the valid API keys, one a line; read again when it changes. Without keys, all may ask.
        api_keys_env: instead of a file, the name of an environment variable that holds them.
        rate_limit: of one client, such as 10/second or 1000/5minutes; each replica that speaks HTTP counts for itself.
        trusted_proxies: networks whose word about the client's address is believed, such as 10.0.0.0/8.
        cors_origins: of pages elsewhere that may ask from within a browser, such as https://maps.example; * is any.
        receive_timeout_s: for the body of a request to arrive.
        request_timeout_s: for a request to be answered, from its first line on.
    """

    api_keys_file: Path | None = None
    api_keys_env: str | None = None
    rate_limit: str | None = None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    cors_origins: tuple[str, ...] = ()
    receive_timeout_s: PositiveSeconds = 30.0
    request_timeout_s: PositiveSeconds = 60.0

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, rate_limit: str | None) -> str | None:
        if rate_limit is not None:
            from roadseg_serve.http.rate import parse_rate  # noqa: PLC0415 slow to load, and rarely needed

            parse_rate(rate_limit)
        return rate_limit

    @model_validator(mode="after")
    def _has_one_place_of_keys(self) -> Self:
        if self.api_keys_file is not None and self.api_keys_env is not None:
            raise ValueError("give api_keys_file or api_keys_env, not both")
        return self


class AppArgs(Settings):
    """All settings of the serving graph; the defaults fit a laptop with two CPUs.

    Attributes:
        model: which model version to serve; see `artefact.resolve`.
        form: `staged` deploys each stage on its own; `fused` puts all of them into the processes of the model, which
            saves the ways between them on one machine. The masks are the same.
        threshold: in [0, 1], instead of the model's own.
        max_upload_bytes: of one uploaded file.
        max_pixels: of one picture, width times height.
        gate: who may ask, how often, and for how long.
        backpressure_config: what a client hears when there is too much to do.
        ingress: how the HTTP stage is deployed; fused, it is not.
        preprocess: how the decoding stage is deployed; fused, it is not.
        predict: how the model is deployed; fused, with everything else.
        postprocess: how the stage that makes masks is deployed; fused, it is not.
    """

    model: str = "bundled:small"
    form: Literal["staged", "fused"] = "staged"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    max_upload_bytes: Positive = 50_000_000
    max_pixels: Positive = 50_000_000
    gate: GateArgs = GateArgs()
    backpressure_config: BackpressureConfig = BackpressureConfig()
    ingress: StageArgs = StageArgs(max_ongoing_requests=256)
    preprocess: StageArgs = StageArgs()
    predict: ModelArgs = ModelArgs()
    postprocess: StageArgs = StageArgs()

    @property
    def num_cpus(self) -> int:
        """Whole CPUs that Ray needs for the graph, and for the replicas that replace others."""
        stages = (
            [self.predict] if self.form == "fused" else [self.ingress, self.preprocess, self.predict, self.postprocess]
        )
        return math.ceil(
            sum(
                (stage.most_replicas + math.ceil(stage.most_replicas * stage.max_surge_percent / 100)) * stage.num_cpus
                for stage in stages
            )
        )


def listens_itself(args: AppArgs) -> bool:
    """Whether, on one machine, the graph is one replica that needs no proxy before it."""
    return args.form == "fused" and args.predict.most_replicas == 1


def read_settings(path: Path | None, **replaced: Any) -> AppArgs:
    """The settings of a YAML file, or the defaults.

    Args:
        path: of the file.
        replaced: fields that are said elsewhere; None leaves the file's, or the default.

    Raises:
        SettingsError: the file cannot be read, or says what there is not.
    """
    settings = {} if path is None else _read_yaml(path)
    settings |= {field: value for field, value in replaced.items() if value is not None}
    try:
        return AppArgs.model_validate(settings)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"{path or 'the settings'}: {faults}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read {path} ({error}); give a YAML file of settings") from error
    if not isinstance(settings, dict):
        raise SettingsError(f"{path} holds no settings; write lines such as `model: bundled:small`")
    return settings
