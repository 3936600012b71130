from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from roadseg_serve.app import build
from roadseg_serve.settings import AppArgs
from tests.chart.conftest import EVERYTHING, OVERLAYS, Objects


def serve_config(objects: Objects) -> dict[str, Any]:
    (service,) = (item for item in objects if item["kind"] == "RayService")
    config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    return config


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem if path else "values")
def test_ray_serve_and_the_graph_accept_the_config(render: Callable[..., Objects], overlay: Path | None) -> None:
    config = serve_config(render(overlay, EVERYTHING))
    schema = ServeDeploySchema.model_validate(config)
    # Ray ignores unknown keys, so only a comparison finds them.
    assert set(config) <= set(ServeDeploySchema.model_fields)
    (application,) = schema.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    args = AppArgs.model_validate(application.args)
    assert str(args.gate.api_keys_file) == "/etc/roadseg/keys/api-keys"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem if path else "values")
def test_a_version_is_never_replaced_before_the_next_one_answers(
    render: Callable[..., Objects], overlay: Path | None
) -> None:
    args = AppArgs.model_validate(serve_config(render(overlay))["applications"][0]["args"])
    for stage in (args.ingress, args.preprocess, args.predict, args.postprocess):
        # Start another one beside it, or replace one of several at a time.
        assert stage.max_surge_percent > 0 or (stage.num_replicas or 1) > 1


def test_the_stages_in_values_match_the_graph(render: Callable[..., Objects]) -> None:
    args = serve_config(render())["applications"][0]["args"]
    stages = {name for name, part in args.items() if isinstance(part, dict)}
    application = build(AppArgs.model_validate(args))
    deployments = {application._bound_deployment.name}
    deployments |= {bound._bound_deployment.name for bound in application._bound_deployment.init_args}
    assert {"Model" if stage == "predict" else stage.capitalize() for stage in stages} == deployments
