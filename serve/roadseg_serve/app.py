"""The serving graph in one expression, for both of its forms."""

from typing import Any

from ray import serve
from ray.serve import Application

from roadseg_serve.engines.engine import program_of
from roadseg_serve.graph.ingress import Fused, Ingress
from roadseg_serve.models import artefact
from roadseg_serve.settings import AppArgs, StageArgs
from roadseg_serve.stages.postprocess import Postprocess
from roadseg_serve.stages.predict import Model
from roadseg_serve.stages.preprocess import Limits, Preprocess

# Each health check also refreshes the metric of the loaded model (`ModelMetrics.note_loaded`); Ray exports every 10 s.
MODEL_HEALTH_CHECK_PERIOD_S = 5.0


def build(args: AppArgs) -> Application:
    """The serving graph: Ingress -> Preprocess -> Model -> Postprocess.

    Raises:
        ArtefactError: the model cannot be read, or has no program for the engine.
    """
    program = program_of(args.predict.engine, gpu=args.predict.num_gpus > 0)
    manifest = artefact.check(artefact.resolve(args.model), [program])
    # What Ray answers if the queue of the ingress is full; for the other stages the ingress answers.
    refusal = {"backpressure_config": args.backpressure_config.model_dump()}
    if args.form == "fused":
        fused_args = args.predict.model_copy(update={"max_ongoing_requests": args.ingress.max_ongoing_requests})
        fused = _deploy(
            serve.ingress()(Fused), fused_args, health_check_period_s=MODEL_HEALTH_CHECK_PERIOD_S, **refusal
        )
        return fused.bind(args=args, manifest=manifest)
    return _deploy(serve.ingress()(Ingress), args.ingress, **refusal).bind(
        _deploy(Preprocess, args.preprocess).bind(limits=Limits.of(args)),
        _deploy(Model, args.predict, health_check_period_s=MODEL_HEALTH_CHECK_PERIOD_S).bind(
            uri=args.model, args=args.predict
        ),
        _deploy(Postprocess, args.postprocess).bind(threshold=args.threshold),
        args=args,
        manifest=manifest,
    )


def _deploy(stage: type[Any], args: StageArgs, **options: Any) -> serve.Deployment:
    return serve.deployment(**args.deployment_options(), **options)(stage)
