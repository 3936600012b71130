"""The settings: valid and invalid ones."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ray.serve.config import AutoscalingConfig as RayAutoscalingConfig
from ray.serve.schema import DeploymentSchema

from roadseg_serve.errors import SettingsError
from roadseg_serve.settings import AppArgs, StageArgs, listens_itself, read_settings

SCALING = {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 4}


@pytest.mark.parametrize(
    ("settings", "num_cpus"),
    [
        # Three stages of a quarter and a model of one, each twice while versions change: 2 * 1.75 = 3.5.
        ({}, 4),
        # The model alone, twice.
        ({"form": "fused"}, 2),
        ({"form": "fused", "predict": {"max_surge_percent": 0}}, 1),
        # At the most 4 models, and half of them more: 6; the others 1.5.
        ({"predict": {"autoscaling_config": SCALING, "max_surge_percent": 50}}, 8),
    ],
)
def test_ray_gets_cpus_for_all_replicas_and_their_replacements(settings: dict[str, Any], num_cpus: int) -> None:
    assert AppArgs.model_validate(settings).num_cpus == num_cpus


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"treshold": 0.5}, "Extra inputs"),
        ({"threshold": 1.5}, "less than or equal to 1"),
        ({"max_pixels": 0}, "greater than or equal to 1"),
        ({"form": "melted"}, "'staged' or 'fused'"),
        ({"predict": {"num_replica": 2}}, "Extra inputs"),
        ({"gate": {"api_keys_file": "keys", "api_keys_env": "KEYS"}}, "not both"),
        ({"gate": {"trusted_proxies": ["proxy.example"]}}, "network"),
        ({"gate": {"trusted_proxies": ["10.0.0.1/8"]}}, "network"),
        ({"predict": {"num_cpus": 0}}, "greater than 0"),
        ({"predict": {"max_batch_size": 8, "max_ongoing_requests": 7}}, "raise the first to 8"),
        (
            {"predict": {"max_batch_size": 8, "max_ongoing_requests": 16, "max_concurrent_batches": 3}},
            "raise the first to 24",
        ),
        ({"preprocess": {"max_batch_size": 8}}, "Extra inputs"),
        ({"predict": {"engine": "tensorrt"}}, "'openvino'"),
        ({"predict": {"engine": "openvino", "num_gpus": 1}}, "runs on the CPU"),
        ({"predict": {"engine": "openvino-int8", "num_gpus": 0.5}}, "runs on the CPU"),
        ({"predict": {"engine": "onnxruntime", "num_gpus": 1}}, "runs on the CPU"),
        ({"predict": {"num_gpus": 2}}, "less than or equal to 1"),
        ({"predict": {"num_gpus": -1}}, "greater than or equal to 0"),
        ({"preprocess": {"num_gpus": 1}}, "Extra inputs"),
        ({"preprocess": {"num_replicas": 2, "autoscaling_config": SCALING}}, "not both"),
        ({"preprocess": {"autoscaling_config": SCALING | {"min_replicas": 5}}}, "ascending order"),
        ({"preprocess": {"autoscaling_config": SCALING | {"target_ongoing_requests": 9}}}, "scale too late"),
        ({"backpressure_config": {"status_code": 500}}, "503 or 429"),
    ],
)
def test_mistakes_are_refused_with_the_reason(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        AppArgs.model_validate(settings)


def test_ray_accepts_the_deployment_options() -> None:
    options = StageArgs.model_validate({"autoscaling_config": SCALING, "max_queued_requests": 5}).deployment_options()
    # Ray's own schema is the reference: it refuses what it does not know.
    schema = DeploymentSchema(name="Stage", **options)
    assert (schema.max_queued_requests, schema.max_surge_percent) == (5, 100)
    scaling = RayAutoscalingConfig.model_validate(schema.autoscaling_config)
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 4)
    assert DeploymentSchema(name="Stage", **StageArgs(num_replicas=3).deployment_options()).num_replicas == 3


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_only_the_model_reserves_a_gpu(engine: str) -> None:
    args = AppArgs.model_validate({"predict": {"engine": engine, "num_gpus": 0.5}})
    assert args.predict.deployment_options()["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.5}
    assert args.preprocess.deployment_options()["ray_actor_options"] == {"num_cpus": 0.25}
    schema = DeploymentSchema(name="Model", **args.predict.deployment_options())
    assert schema.ray_actor_options is not None
    assert schema.ray_actor_options.num_gpus == 0.5


@pytest.mark.parametrize(
    ("settings", "alone"),
    [
        ({"form": "fused"}, True),
        ({"form": "fused", "predict": {"num_replicas": 2}}, False),
        ({"form": "fused", "predict": {"autoscaling_config": SCALING}}, False),
        ({"form": "staged"}, False),
    ],
)
def test_one_fused_replica_needs_no_proxy(settings: dict[str, Any], alone: bool) -> None:
    assert listens_itself(AppArgs.model_validate(settings)) == alone


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "roadseg.yaml"
    path.write_text("model: models/a/1\nthreshold: 0.25\npredict:\n  max_batch_size: 4\n")
    args = read_settings(path, model="models/a/2", form=None)
    assert (args.model, args.threshold, args.predict.max_batch_size, args.form) == ("models/a/2", 0.25, 4, "staged")
    assert read_settings(None) == AppArgs()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("modle: x", "modle: Extra inputs"),
        ("- a list", "has no settings"),
        ("a: [", "cannot read"),
        ("predict: {max_batch_size: 99}", "predict: Value error, max_ongoing_requests"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_name(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "roadseg.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=reason) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_one_line_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*nothing\.yaml"):
        read_settings(tmp_path / "nothing.yaml")
