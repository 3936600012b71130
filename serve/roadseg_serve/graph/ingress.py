"""The deployments of Ray Serve that speak HTTP: the routes of `http` over a pipeline in either form."""

import math

from fastapi import FastAPI

from roadseg_serve.graph.in_process import InProcessPipeline
from roadseg_serve.graph.replicas import Handle, ReplicaPipeline
from roadseg_serve.http.api import STEPS, create_api
from roadseg_serve.http.stream import Streams
from roadseg_serve.messages import Answer, AnswerOptions, ModelName
from roadseg_serve.models.manifest import Manifest
from roadseg_serve.observe.metrics import Metrics
from roadseg_serve.observe.snapshot import take_snapshot
from roadseg_serve.observe.status import StatusMonitor
from roadseg_serve.settings import AppArgs
from roadseg_serve.stages.pipeline import Pipeline
from roadseg_serve.stages.postprocess import Postprocess
from roadseg_serve.stages.predict import Model
from roadseg_serve.stages.preprocess import Limits, Preprocess


class HttpIngress:
    """HTTP in front of a pipeline."""

    def __init__(self, pipeline: Pipeline, args: AppArgs, manifest: Manifest) -> None:
        self._pipeline = pipeline
        self._args = args
        self._manifest = manifest
        self._metrics = Metrics()
        self._streams = Streams(
            self.segment,
            max_frame_bytes=args.max_upload_bytes,
            # An open stream holds the slot of one request; half of the slots stay free for the other routes.
            max_streams=args.ingress.max_ongoing_requests // 2,
            note_refusal=self._metrics.note_refusal,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The routes; Ray Serve calls this when a replica starts."""
        return create_api(
            self,
            self._manifest,
            self._args,
            streams=self._streams,
            server_status=StatusMonitor(STEPS, take_snapshot).status,
            note_refusal=self._metrics.note_refusal,
        )

    async def segment(self, data: bytes, options: AnswerOptions) -> Answer:
        """`Pipeline.segment`, counted in the metrics."""
        answer = await self._pipeline.segment(data, options)
        self._metrics.note_answer(answer)
        return answer

    async def probe(self) -> ModelName:
        """See `Pipeline.probe`."""
        return await self._pipeline.probe()

    async def stop_streams(self) -> None:
        """Close all open streams; otherwise Ray Serve waits for them before it stops this replica."""
        self._streams.stop()


class Ingress(HttpIngress):
    """The form `staged`: the other stages are replicas of their own."""

    def __init__(
        self, preprocess: Handle, model: Handle, postprocess: Handle, *, args: AppArgs, manifest: Manifest
    ) -> None:
        stages = ReplicaPipeline(preprocess, model, postprocess, size_rule=manifest.input.size)
        super().__init__(stages, args, manifest)


class Fused(HttpIngress):
    """The form `fused`: all stages in this replica.

    Raises:
        ArtefactError: the model cannot be read.
        StartError: the engine cannot run here.
    """

    def __init__(self, *, args: AppArgs, manifest: Manifest) -> None:
        self._model = Model(uri=args.model, args=args.predict)
        waiting = math.inf if args.predict.max_queued_requests < 0 else args.predict.max_queued_requests
        stages = InProcessPipeline(
            Preprocess(limits=Limits.of(args)),
            self._model,
            Postprocess(threshold=args.threshold),
            size_rule=self._model.size_rule,
            max_predictions=args.predict.max_ongoing_requests + waiting,
        )
        super().__init__(stages, args, manifest)

    def check_health(self) -> None:
        """Ray Serve calls this every few seconds."""
        self._model.check_health()
