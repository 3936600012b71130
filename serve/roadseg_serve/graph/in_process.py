"""The pipeline in one process: the same stages, called directly."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from roadseg_serve.errors import ModelUnavailableError, OverloadedError
from roadseg_serve.messages import Answer, AnswerOptions, Format, Frame, ModelName, Prediction
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.stages.pipeline import NO_ANSWER, PROBE_TIMEOUT_S, TOO_BUSY, probe_frame, with_queue_time


@dataclass
class InProcessPipeline:
    """A `Pipeline` whose stages are coroutines of this process.

    At most `max_predictions` frames may be in the model or wait for it; more are refused.
    """

    preprocess: Callable[..., Awaitable[Frame]]
    model: Callable[[Frame], Awaitable[Prediction]]
    postprocess: Callable[[Prediction, AnswerOptions, Frame], Awaitable[Answer]]
    size_rule: SizeRule
    max_predictions: float = math.inf
    _num_predictions: int = field(default=0, init=False)

    async def segment(self, data: bytes, options: AnswerOptions) -> Answer:
        """See `Pipeline.segment`."""
        started_s = time.perf_counter()
        frame = await self.preprocess(data, self.size_rule, keep_picture=options.format is Format.OVERLAY)
        answer = await self.postprocess(await self._predict(frame), options, frame)
        return with_queue_time(answer, time.perf_counter() - started_s)

    async def probe(self) -> ModelName:
        """See `Pipeline.probe`."""
        try:
            return (await asyncio.wait_for(self._predict(probe_frame(self.size_rule)), PROBE_TIMEOUT_S)).model
        except TimeoutError as error:
            raise ModelUnavailableError(NO_ANSWER) from error

    async def _predict(self, frame: Frame) -> Prediction:
        if self._num_predictions >= self.max_predictions:
            raise OverloadedError(TOO_BUSY)
        self._num_predictions += 1
        try:
            return await self.model(frame)
        finally:
            self._num_predictions -= 1
