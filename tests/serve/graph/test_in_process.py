"""The pipeline in one process, with stages written by hand."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from roadseg_serve.errors import ModelUnavailableError, OverloadedError
from roadseg_serve.graph.in_process import InProcessPipeline
from roadseg_serve.messages import Answer, AnswerOptions, Format, Frame, ModelName, Placement, Prediction
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.stages import pipeline as stages_pipeline

RED = ModelName("red", "1")
RULE = SizeRule(short_side_px=64, max_long_side_px=160, multiple_px=16)


async def preprocess(_data: bytes, size_rule: SizeRule, *, keep_picture: bool) -> Frame:
    image_HWC = np.zeros((16, 16, 3), np.uint8)
    return Frame(
        image_HWC, Placement(16, 16, 16, 16), size_rule, image_HWC if keep_picture else None, {"decode": 0.001}
    )


async def predict(frame: Frame) -> Prediction:
    return Prediction(frame.input_HWC[..., 0], frame.placement, 0.5, RED, frame.times_s)


async def postprocess(prediction: Prediction, _options: AnswerOptions, frame: Frame) -> Answer:
    body = b"mask" if frame.picture_HWC is None else b"overlay"
    return Answer(body, "image/jpeg", prediction.model, 0.5, prediction.times_s)


def pipeline_of(
    model: Callable[[Frame], Awaitable[Prediction]] = predict, max_predictions: float = math.inf
) -> InProcessPipeline:
    return InProcessPipeline(preprocess, model, postprocess, size_rule=RULE, max_predictions=max_predictions)


def test_only_an_overlay_carries_the_picture() -> None:
    assert asyncio.run(pipeline_of().segment(b"", AnswerOptions())).body == b"mask"
    assert asyncio.run(pipeline_of().segment(b"", AnswerOptions(Format.OVERLAY))).body == b"overlay"


def test_time_without_work_is_queue_time() -> None:
    async def predict_late(frame: Frame) -> Prediction:
        await asyncio.sleep(0.05)  # no stage counts this as work
        return await predict(frame)

    answer = asyncio.run(pipeline_of(predict_late).segment(b"", AnswerOptions()))
    assert answer.times_s["decode"] == 0.001
    assert answer.times_s["queue"] >= 0.05 - 0.001


def test_frames_over_the_models_limit_are_refused() -> None:
    async def ask() -> list[bytes]:
        go_on = asyncio.Event()

        async def predict_when_told(frame: Frame) -> Prediction:
            await go_on.wait()
            return await predict(frame)

        pipeline = pipeline_of(predict_when_told, max_predictions=2)
        waiting = [asyncio.create_task(pipeline.segment(b"", AnswerOptions())) for _ in range(3)]
        with pytest.raises(OverloadedError):
            await waiting[2]
        with pytest.raises(OverloadedError):
            await pipeline.probe()
        go_on.set()
        answers = [*await asyncio.gather(*waiting[:2]), await pipeline.segment(b"", AnswerOptions())]
        return [answer.body for answer in answers]

    assert asyncio.run(ask()) == [b"mask"] * 3


def test_a_cancelled_request_frees_its_place_in_the_model() -> None:
    async def ask() -> Answer:
        never = asyncio.Event()
        frames = []

        async def predict_second(frame: Frame) -> Prediction:
            frames.append(frame)
            if len(frames) == 1:
                await never.wait()
            return await predict(frame)

        pipeline = pipeline_of(predict_second, max_predictions=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pipeline.segment(b"", AnswerOptions()), 0.05)
        return await pipeline.segment(b"", AnswerOptions())

    assert asyncio.run(ask()).model == RED


def test_a_probe_names_the_model_or_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asyncio.run(pipeline_of().probe()) == RED

    async def predict_never(_frame: Frame) -> Prediction:
        await asyncio.sleep(3600)
        raise AssertionError

    monkeypatch.setattr("roadseg_serve.graph.in_process.PROBE_TIMEOUT_S", 0.05)
    with pytest.raises(ModelUnavailableError, match="Try again"):
        asyncio.run(pipeline_of(predict_never).probe())


def test_the_probe_is_the_smallest_frame() -> None:
    frame = stages_pipeline.probe_frame(RULE)
    assert frame.input_HWC.shape == (16, 16, 3)
    assert frame.size_rule == RULE
