"""The pipeline over replicas, with stages by hand that are full, lost or of another version."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, RayServeException

from roadseg_serve.errors import DamagedImageError, ModelUnavailableError, OverloadedError, RefitError
from roadseg_serve.graph.replicas import ReplicaPipeline
from roadseg_serve.messages import Answer, AnswerOptions, Format, Frame, ModelName, Placement, Prediction
from roadseg_serve.models.manifest import SizeRule

OLD = ModelName("red", "1")
NEW = ModelName("red", "2")
OLD_RULE = SizeRule(short_side_px=64, max_long_side_px=160, multiple_px=16)
NEW_RULE = SizeRule(short_side_px=32, max_long_side_px=64, multiple_px=16)


async def preprocess(_data: bytes, size_rule: SizeRule, *, keep_picture: bool) -> Frame:
    picture_HWC = np.zeros((16, 16, 3), np.uint8)
    return Frame(
        picture_HWC, Placement(16, 16, 16, 16), size_rule, picture_HWC if keep_picture else None, {"decode": 0.001}
    )


async def postprocess(prediction: Prediction, _options: AnswerOptions, frame: Frame | None) -> Answer:
    body = b"overlay" if frame is not None and frame.picture_HWC is not None else b"mask"
    return Answer(body, "image/jpeg", prediction.model, 0.5, prediction.times_s)


def predict_as(model: ModelName, size_rule: SizeRule) -> Callable[[Frame], Awaitable[Prediction]]:
    async def predict(frame: Frame) -> Prediction:
        if frame.size_rule != size_rule:
            raise RefitError(size_rule)
        return Prediction(frame.input_HWC[..., 0], frame.placement, 0.5, model, frame.times_s)

    return predict


class HandleStub:
    """A handle of Ray Serve: a call starts at once, and waits for those of its arguments that are calls."""

    def __init__(self, stage: Callable[..., Awaitable[Any]]) -> None:
        self._stage = stage

    def remote(self, *args: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        async def call() -> Any:
            return await self._stage(*[await arg if isinstance(arg, asyncio.Task) else arg for arg in args], **kwargs)

        return asyncio.ensure_future(call())


def pipeline_of(model: Callable[[Frame], Awaitable[Prediction]]) -> ReplicaPipeline:
    return ReplicaPipeline(HandleStub(preprocess), HandleStub(model), HandleStub(postprocess), size_rule=OLD_RULE)


def test_a_frame_that_meets_another_version_is_resized_again() -> None:
    pipeline = pipeline_of(predict_as(NEW, NEW_RULE))
    assert asyncio.run(pipeline.segment(b"", AnswerOptions())).model == NEW


def test_health_follows_the_version_too() -> None:
    assert asyncio.run(pipeline_of(predict_as(NEW, NEW_RULE)).probe()) == NEW


def test_both_versions_answer_during_a_model_change() -> None:
    old, new = predict_as(OLD, OLD_RULE), predict_as(NEW, NEW_RULE)
    # The first upload meets the new one with the old rule, then the old one with the new rule, then the old one again.
    replicas = iter([new, old, old, new, new])

    async def predict(frame: Frame) -> Prediction:
        return await next(replicas)(frame)

    async def ask() -> list[ModelName]:
        pipeline = pipeline_of(predict)
        return [(await pipeline.segment(b"", AnswerOptions())).model for _ in range(2)]

    assert asyncio.run(ask()) == [OLD, NEW]


def test_a_model_that_always_differs_does_not_loop_forever() -> None:
    rules = iter(SizeRule(short_side_px=16 + i, max_long_side_px=64, multiple_px=16) for i in range(1000))

    async def predict(_frame: Frame) -> Prediction:
        raise RefitError(next(rules))

    with pytest.raises(ModelUnavailableError, match="Try again"):
        asyncio.run(pipeline_of(predict).segment(b"", AnswerOptions()))


def test_a_full_queue_is_an_overload() -> None:
    async def predict(_frame: Frame) -> Prediction:
        raise BackPressureError(num_queued_requests=9, max_queued_requests=9)

    with pytest.raises(OverloadedError, match="Try again"):
        asyncio.run(pipeline_of(predict).segment(b"", AnswerOptions()))


@pytest.mark.parametrize("lost", [ActorDiedError(), WorkerCrashedError(), RayServeException("an upstream actor died")])
def test_a_lost_replica_is_reported_and_not_retried(lost: Exception) -> None:
    asked = []

    async def predict(_frame: Frame) -> Prediction:
        asked.append(1)
        raise lost

    with pytest.raises(ModelUnavailableError, match="Send it again"):
        asyncio.run(pipeline_of(predict).segment(b"", AnswerOptions()))
    assert len(asked) == 1


def test_an_error_of_another_process_is_unwrapped() -> None:
    fault = DamagedImageError("Save it again.")

    async def predict(_frame: Frame) -> Prediction:
        raise RayTaskError("predict", "its traceback", fault).as_instanceof_cause()

    with pytest.raises(DamagedImageError) as caught:
        asyncio.run(pipeline_of(predict).segment(b"", AnswerOptions()))
    assert caught.value is fault
    assert "its traceback" in str(caught.value.__cause__)


def test_only_an_overlay_carries_the_picture() -> None:
    pipeline = pipeline_of(predict_as(OLD, OLD_RULE))
    assert asyncio.run(pipeline.segment(b"", AnswerOptions())).body == b"mask"
    assert asyncio.run(pipeline.segment(b"", AnswerOptions(Format.OVERLAY))).body == b"overlay"


def test_time_without_work_is_queue_time() -> None:
    async def predict(frame: Frame) -> Prediction:
        await asyncio.sleep(0.05)  # no stage calls this work
        return await predict_as(OLD, frame.size_rule)(frame)

    answer = asyncio.run(pipeline_of(predict).segment(b"", AnswerOptions()))
    assert answer.times_s["decode"] == 0.001
    assert answer.times_s["queue"] >= 0.05 - 0.001


def test_a_cancelled_request_cancels_its_calls() -> None:
    given_up = []

    class Call:
        """A call of another process: it goes on whoever stops to wait for it."""

        def __init__(self, stage: str) -> None:
            self._stage = stage

        def __await__(self) -> Any:
            return asyncio.sleep(3600).__await__()

        def cancel(self) -> None:
            given_up.append(self._stage)

    class Stage:
        def __init__(self, name: str) -> None:
            self._name = name

        def remote(self, *_args: Any, **_kwargs: Any) -> Call:
            return Call(self._name)

    stages = [Stage(name) for name in ("preprocess", "model", "postprocess")]
    pipeline = ReplicaPipeline(*stages, size_rule=OLD_RULE)

    async def ask() -> None:
        await asyncio.wait_for(pipeline.segment(b"", AnswerOptions()), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(ask())
    assert sorted(given_up) == ["model", "postprocess", "preprocess"]
