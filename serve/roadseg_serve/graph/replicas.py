"""The pipeline over Ray Serve: each stage has replicas of its own, and data goes from stage to stage directly."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, RayError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, RayServeException

from roadseg_serve.errors import ModelUnavailableError, OverloadedError, RefitError
from roadseg_serve.messages import Answer, AnswerOptions, Format, ModelName, Prediction
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.stages.pipeline import NO_ANSWER, PROBE_TIMEOUT_S, TOO_BUSY, probe_frame, with_queue_time

# During a model change, old and new replicas run side by side, and a frame scaled for one may reach the other. With
# equal numbers of both, every second attempt fails, so twenty in a row fail once in a million.
MAX_ATTEMPTS = 20

# Raised when a replica dies during a call, or when its result is lost with a node. If it was the replica of an earlier
# stage, Ray Serve raises only its most general exception.
LOST = (RayServeException, RayActorError, ObjectLostError, NodeDiedError, WorkerCrashedError)

Result = TypeVar("Result")


class Handle(Protocol):
    """A Ray Serve handle to the replicas of one stage."""

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Start a call; the result can be awaited, cancelled, or passed to the next stage before it is there."""


class ReplicaPipeline:
    """A `Pipeline` over handles; `size_rule` is the model's, until a replica reports another."""

    def __init__(self, preprocess: Handle, model: Handle, postprocess: Handle, *, size_rule: SizeRule) -> None:
        self._preprocess = preprocess
        self._model = model
        self._postprocess = postprocess
        self._size_rule = size_rule

    async def segment(self, data: bytes, options: AnswerOptions) -> Answer:
        """See `Pipeline.segment`."""
        started_s = time.perf_counter()
        try:
            answer = await self._retry(partial(self._segment_once, data, options))
        except RayTaskError as error:  # Ray's wrapper around the exception of another process
            raise error.cause from error
        return with_queue_time(answer, time.perf_counter() - started_s)

    async def probe(self) -> ModelName:
        """See `Pipeline.probe`."""
        attempts = self._retry(lambda size_rule: self._model.remote(probe_frame(size_rule)))
        try:
            prediction: Prediction = await asyncio.wait_for(attempts, PROBE_TIMEOUT_S)
        except (TimeoutError, RayError) as error:
            raise ModelUnavailableError(NO_ANSWER) from error
        return prediction.model

    async def _segment_once(self, data: bytes, options: AnswerOptions, size_rule: SizeRule) -> Answer:
        keep_picture = options.format is Format.OVERLAY
        frame = self._preprocess.remote(data, size_rule, keep_picture=keep_picture)
        prediction = self._model.remote(frame)
        call = self._postprocess.remote(prediction, options, frame if keep_picture else None)
        try:
            answer: Answer = await call
        except asyncio.CancelledError:
            for started in (call, prediction, frame):  # Ray does not cancel the calls of a cancelled caller
                started.cancel()
            raise
        return answer

    async def _retry(self, call: Callable[[SizeRule], Awaitable[Result]]) -> Result:
        """Call the stages with the model's size rule, and again if a model with another rule got the frame.

        A lost replica is no reason to try again: a picture that kills replicas would kill the next one too.

        Raises:
            OverloadedError: the queue of a stage is full.
            ModelUnavailableError: a replica was lost, or every attempt reached the wrong model.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                return await call(self._size_rule)
            except RefitError as error:
                refit = getattr(error, "cause", error)  # as in `segment`
                self._size_rule = refit.args[0]
            except BackPressureError as error:
                raise OverloadedError(TOO_BUSY) from error
            except LOST as error:
                raise ModelUnavailableError(
                    "Part of the server stopped while it worked on this request. Send it again in a moment."
                ) from error
        raise ModelUnavailableError("The model is being replaced. Try again in a moment.")
