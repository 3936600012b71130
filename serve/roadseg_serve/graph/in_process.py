"""The pipeline in one process: the same stages, called directly."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from roadseg_serve.errors import ModelUnavailableError, OverloadedError
from roadseg_serve.messages import Answer, AnswerOptions, Format, Frame, ModelName, Prediction
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.stages.pipeline import NO_ANSWER, PROBE_TIMEOUT_S, TOO_BUSY, probe_frame, with_queue_time


class InProcessPipeline:
    """A `Pipeline` whose stages are coroutines of this process.

    Args:
        preprocess: file and size rule to `Frame`.
        model: `Frame` to `Prediction`.
        postprocess: `Prediction` to `Answer`.
        size_rule: of the model.
        max_predictions: frames that may be in the model or wait for it; more are refused.
    """

    def __init__(
        self,
        preprocess: Callable[..., Awaitable[Frame]],
        model: Callable[[Frame], Awaitable[Prediction]],
        postprocess: Callable[[Prediction, AnswerOptions, Frame], Awaitable[Answer]],
        *,
        size_rule: SizeRule,
        max_predictions: float = math.inf,
    ) -> None:
        self._preprocess = preprocess
        self._model = model
        self._postprocess = postprocess
        self._size_rule = size_rule
        self._max_predictions = max_predictions
        self._num_predictions = 0

    async def segment(self, data: bytes, options: AnswerOptions) -> Answer:
        """See `Pipeline.segment`."""
        started_s = time.perf_counter()
        frame = await self._preprocess(data, self._size_rule, keep_picture=options.format is Format.OVERLAY)
        answer = await self._postprocess(await self._predict(frame), options, frame)
        return with_queue_time(answer, time.perf_counter() - started_s)

    async def probe(self) -> ModelName:
        """See `Pipeline.probe`."""
        try:
            return (await asyncio.wait_for(self._predict(probe_frame(self._size_rule)), PROBE_TIMEOUT_S)).model
        except TimeoutError as error:
            raise ModelUnavailableError(NO_ANSWER) from error

    async def _predict(self, frame: Frame) -> Prediction:
        if self._num_predictions >= self._max_predictions:
            raise OverloadedError(TOO_BUSY)
        self._num_predictions += 1
        try:
            return await self._model(frame)
        finally:
            self._num_predictions -= 1
