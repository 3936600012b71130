"""The stage that speaks HTTP: it holds the graph's handles and puts the routes of `api` on them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np
from fastapi import FastAPI
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, RayServeException

from roadseg_serve.errors import ModelUnavailableError, OverloadedError, RefitError
from roadseg_serve.http.api import STEPS, Service, create_api
from roadseg_serve.http.stream import Streams
from roadseg_serve.messages import Answer, AnswerOptions, Format, Frame, ModelName, Placement, Prediction
from roadseg_serve.models.manifest import Manifest, SizeRule
from roadseg_serve.observe.metrics import Metrics
from roadseg_serve.observe.status import StatusMonitor, take_snapshot
from roadseg_serve.settings import AppArgs
from roadseg_serve.stages.predict import size_rule_of

PROBE_TIMEOUT_S = 5.0

# While versions change there are two models: a frame that was fitted for one and met the other is fitted anew.
# With as many old replicas as new ones every other attempt fails, so twenty fail once in a million.
MAX_ATTEMPTS = 20

# What a call ends in whose replica ends in the midst of it, or whose answer is lost with a node. Where it is that of a
# stage before, Serve says so with its most general exception.
LOST = (RayServeException, RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError)

Result = TypeVar("Result")


class Stage(Protocol):
    """The next stage: a handle to its replicas, or `fused.Here`."""

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Start a call; what comes back is awaited, or passed on to another stage as it is."""


class Ingress:
    """The stage: HTTP in and out.

    Args:
        preprocess: uploaded bytes to `Frame`.
        model: `Frame` to `Prediction`.
        postprocess: `Prediction` to `Answer`.
        args: the settings of the graph.
        manifest: of the model being served.
    """

    def __init__(
        self, preprocess: Stage, model: Stage, postprocess: Stage, *, args: AppArgs, manifest: Manifest
    ) -> None:
        self._preprocess = preprocess
        self._model = model
        self._postprocess = postprocess
        self._args = args
        self._manifest = manifest
        self._size_rule = manifest.input.size
        self._metrics = Metrics()
        self._streams = Streams(
            self.segment,
            max_frame_bytes=args.max_upload_bytes,
            # A stream takes the place of a request for as long as it is open; the other routes keep half of them.
            max_streams=args.ingress.max_ongoing_requests // 2,
            note_refusal=self._metrics.note_refusal,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The routes; Ray Serve asks for them when a replica starts."""
        return create_api(
            Service(
                segment=self.segment,
                probe=self.probe,
                manifest=self._manifest,
                max_upload_bytes=self._args.max_upload_bytes,
                note_refusal=self._metrics.note_refusal,
                backpressure=self._args.backpressure_config,
                gate=self._args.gate,
                streams=self._streams,
                status=StatusMonitor(STEPS, take_snapshot).status,
            )
        )

    async def segment(self, data: bytes, wish: AnswerOptions) -> Answer:
        """Uploaded bytes to the answer. What is between goes from replica to replica, not through here.

        Raises:
            RequestError: the upload is refused.
        """

        async def answer_by(size_rule: SizeRule) -> Answer:
            keep_picture = wish.format is Format.OVERLAY
            frame = self._preprocess.remote(data, size_rule, keep_picture=keep_picture)
            prediction = self._model.remote(frame)
            call = self._postprocess.remote(prediction, wish, frame if keep_picture else None)
            try:
                answer: Answer = await call
            except asyncio.CancelledError:
                # Ray goes on with what a caller who is cancelled has asked for, unless it is told.
                for started in (call, prediction, frame):
                    started.cancel()
                raise
            return answer

        started_s = time.perf_counter()
        answer = await self._ask(answer_by)
        # What is not work is waiting, wherever it was: for a replica, for a batch, for the way between processes.
        queue_s = max(0.0, time.perf_counter() - started_s - sum(answer.times_s.values()))
        answer = replace(answer, times_s={**answer.times_s, "queue": queue_s})
        self._metrics.note_answer(answer)
        return answer

    async def stop_streams(self) -> None:
        """End all open streams, which Ray Serve would wait for before it stops this replica."""
        self._streams.stop()

    async def probe(self) -> ModelName:
        """Ask the model about the smallest input.

        Raises:
            ModelUnavailableError: no answer within `PROBE_TIMEOUT_S`.
        """

        async def predict_by(size_rule: SizeRule) -> Prediction:
            side_px = size_rule.multiple_px
            input_HWC = np.zeros((side_px, side_px, 3), np.uint8)
            frame = Frame(input_HWC, Placement(side_px, side_px, side_px, side_px), size_rule)
            prediction: Prediction = await self._model.remote(frame)
            return prediction

        try:
            return (await asyncio.wait_for(self._ask(predict_by), PROBE_TIMEOUT_S)).model
        except (TimeoutError, RayError) as error:
            raise ModelUnavailableError(
                f"No model answered within {PROBE_TIMEOUT_S:g} s. Try again in a moment."
            ) from error

    async def _ask(self, stages: Callable[[SizeRule], Awaitable[Result]]) -> Result:
        """Call the stages with the model's size rule, and once more where a model of another rule answered.

        Raises:
            OverloadedError: a stage has enough to do.
            ModelUnavailableError: every attempt met another model, or a replica ended while it worked. It is not tried
                again: a picture that ends replicas would end another.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                return await stages(self._size_rule)
            except RefitError as error:
                self._size_rule = size_rule_of(error)
            except BackPressureError as error:
                raise OverloadedError("Too many pictures are waiting. Try again in a moment.") from error
            except LOST as error:
                raise ModelUnavailableError(
                    "A part of the server ended while it worked on this. Send it again in a moment."
                ) from error
        raise ModelUnavailableError("The model is being changed. Try again in a moment.")
