"""The graph that `build` makes: its deployments, and what stops it."""

from pathlib import Path

import pytest
import yaml
from ray.serve._private.build_app import build_app
from ray.serve.schema import ServeDeploySchema

from roadseg_serve.app import build
from roadseg_serve.errors import ArtefactError
from roadseg_serve.settings import AppArgs, ModelArgs


def test_a_missing_model_is_a_start_up_error(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"manifest\.json is missing"):
        build(AppArgs(model=str(tmp_path / "nothing")))


def test_a_model_without_the_program_of_the_engine_is_refused(red_artefact: Path) -> None:
    args = AppArgs(model=str(red_artefact), predict=ModelArgs(engine="openvino-int8"))
    with pytest.raises(ArtefactError, match=r"has no model\.int8\.onnx; choose another engine"):
        build(args)


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("form", "names"), [("staged", {"Ingress", "Preprocess", "Model", "Postprocess"}), ("fused", {"Fused"})]
)
def test_each_form_has_its_deployments(form: str, names: set[str]) -> None:
    built = build_app(build(AppArgs.model_validate({"form": form})), name="roadseg")
    assert {deployment.name for deployment in built.deployments} == names


def test_the_example_of_a_serve_config_file_is_right() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load((DOCS / "serve.yaml").read_text()))
    (application,) = config.applications
    args = AppArgs.model_validate(application.args)
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert args.predict.most_replicas == 4
