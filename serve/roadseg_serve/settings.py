"""All settings of the serving graph: one typed tree for the command line, Serve config files and the chart.

Fields that Ray Serve has too keep Ray Serve's names. pydantic-settings would save nothing here: one YAML file is easily
read, and its errors would have to be turned into one line with the file's name all the same.
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

LogFormat = Literal["text", "json"]


class Settings(BaseModel):
    """One group of settings: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoscalingConfig(Settings):
    """Scale the replicas of a stage with its load.

    Attributes:
        min_replicas: lower limit; 0 stops the stage while it is idle, and the next request waits for its start.
        max_replicas: upper limit.
        initial_replicas: at the start; default: `min_replicas`.
        target_ongoing_requests: requests per replica, waiting or in progress.
        upscale_delay_s: how long the load must be too high before replicas are added.
        downscale_delay_s: how long the load must be too low before replicas are removed.
        look_back_period_s: window over which the load is averaged; replicas report it every ten seconds.
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
                f"({self.max_replicas}) must be in ascending order"
            )
        return self


class StageArgs(Settings):
    """How one stage is deployed.

    Attributes:
        num_replicas: processes of this stage; excludes `autoscaling_config`.
        autoscaling_config: scales the number of replicas with the load.
        num_cpus: CPUs that Ray reserves for each replica; with fractions, stages share a CPU.
        max_ongoing_requests: requests that one replica works on at the same time.
        max_queued_requests: requests that may wait for the stage, per caller; more are refused. -1 means no limit.
        max_replicas_per_node: spreads the replicas over nodes.
        max_surge_percent: extra replicas during an update, in percent. With 0, updates need no extra CPUs, but a stage
            with one replica is down while it is replaced.
        graceful_shutdown_timeout_s: how long a stopping replica may finish its requests.
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
                f"({self.max_ongoing_requests}): no replica reaches it, so the stage would scale too late; "
                "lower the first or raise the second"
            )
        return self

    @property
    def most_replicas(self) -> int:
        """The most replicas outside an update."""
        return self.num_replicas or (self.autoscaling_config.max_replicas if self.autoscaling_config else 1)

    @property
    def most_cpus(self) -> float:
        """CPUs of all replicas during an update."""
        extra = math.ceil(self.most_replicas * self.max_surge_percent / 100)
        return (self.most_replicas + extra) * self.num_cpus

    def deployment_options(self) -> dict[str, Any]:
        """Arguments of `serve.deployment`."""
        options = self.model_dump(include=set(StageArgs.model_fields) - {"num_cpus"}, exclude_none=True)
        return options | {"ray_actor_options": self.model_dump(include={"num_cpus", "num_gpus"})}


class ModelArgs(StageArgs):
    """How the model is deployed; its engine runs one thread per whole CPU in `num_cpus`, and at least one.

    Attributes:
        engine: inference engine; `auto` is torch on a GPU, else OpenVINO, else ONNX Runtime.
        num_gpus: GPUs that Ray reserves for each replica; with fractions, replicas share a GPU.
        max_batch_size: most frames in one batch.
        batch_wait_timeout_s: how long a frame waits for others; 0 takes the frames that are waiting already.
        max_concurrent_batches: batches at the same time; the next one collects frames meanwhile.
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

    @model_validator(mode="after")
    def _gpu_is_used(self) -> Self:
        if self.num_gpus and self.engine not in ("auto", "torch"):
            raise ValueError(
                f"the engine {self.engine} runs on the CPU, so the GPU (num_gpus: {self.num_gpus:g}) would be idle; "
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
    """The answer when the queue of a stage is full.

    Attributes:
        status_code: 503 blames the server, 429 the client.
        retry_after_s: sent as `Retry-After`.
    """

    status_code: Literal[503, 429] = 503
    retry_after_s: Positive = 1


class GateArgs(Settings):
    """Access control, rate limit and timeouts: docs/security.md.

    Attributes:
        api_keys_file: file of valid API keys, one per line; read again when it changes. Without keys, access is open.
        api_keys_env: environment variable with the keys, instead of a file.
        rate_limit: per client, such as 10/second or 1000/5minutes; each HTTP replica counts separately.
        trusted_proxies: networks whose `X-Forwarded-For` is believed, such as 10.0.0.0/8.
        cors_origins: origins of other web pages that may call this server, such as https://maps.example; * allows all.
        receive_timeout_s: for receiving the body of a request.
        request_timeout_s: for the whole request, from its first line to the end of the answer.
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
            import limits  # noqa: PLC0415 slow to load, and rarely needed

            rate, *others = limits.parse_many(rate_limit)
            if others or rate.amount < 1:
                raise ValueError(f"{rate_limit!r} is not one rate such as 10/second")
        return rate_limit

    @model_validator(mode="after")
    def _has_one_source_of_keys(self) -> Self:
        if self.api_keys_file is not None and self.api_keys_env is not None:
            raise ValueError("give api_keys_file or api_keys_env, not both")
        return self


class AppArgs(Settings):
    """All settings of the serving graph; the defaults fit a laptop with two CPUs.

    Attributes:
        model: model version to serve; see `artefact.resolve`.
        form: `staged` deploys each stage separately; `fused` runs all stages in the replicas of the model, which is
            faster on one machine. The masks are the same.
        threshold: in [0, 1], instead of the model's own.
        max_upload_bytes: limit for one uploaded file.
        max_pixels: limit for one picture, width times height.
        gate: access control, rate limit and timeouts.
        backpressure_config: the answer when the server is too busy.
        ingress: deployment of the HTTP stage; not used if fused.
        preprocess: deployment of the decoding stage; not used if fused.
        predict: deployment of the model; if fused, of everything.
        postprocess: deployment of the stage that makes masks; not used if fused.
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
        """Whole CPUs that Ray needs for all replicas, including the extra ones during an update."""
        staged = [self.ingress, self.preprocess, self.predict, self.postprocess]
        return math.ceil(sum(stage.most_cpus for stage in (staged if self.form == "staged" else [self.predict])))


def listens_itself(args: AppArgs) -> bool:
    """Whether, on one machine, a single replica serves HTTP itself, without a proxy in front."""
    return args.form == "fused" and args.predict.most_replicas == 1


def read_settings(path: Path | None, **replaced: Any) -> AppArgs:
    """Read the settings from a YAML file, or take the defaults; the top-level fields `replaced` win unless None.

    Raises:
        SettingsError: the file cannot be read, or a setting is unknown or invalid.
    """
    try:
        settings = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read {path} ({error}); give a YAML file of settings") from error
    if not isinstance(settings, dict):
        raise SettingsError(f"{path} has no settings; write lines such as `model: bundled:small`")
    settings |= {field: value for field, value in replaced.items() if value is not None}
    try:
        return AppArgs.model_validate(settings)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"{path or 'the settings'}: {faults}") from error
