"""What the ingress does about stages that are full or of another version, with stages written by hand."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, RayServeException

from roadseg_serve.errors import ModelUnavailableError, OverloadedError, RefitError
from roadseg_serve.graph.fused import Here
from roadseg_serve.graph.ingress import Ingress
from roadseg_serve.messages import Answer, AnswerOptions, Format, Frame, ModelName, Placement, Prediction
from roadseg_serve.models import artefact
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.settings import AppArgs

OLD = ModelName("red", "1")
NEW = ModelName("red", "2")
NEW_RULE = SizeRule(short_side_px=32, max_long_side_px=64, multiple_px=16)


async def preprocess(_data: bytes, size_rule: SizeRule, *, keep_picture: bool) -> Frame:
    picture_HWC = np.zeros((16, 16, 3), np.uint8)
    return Frame(
        picture_HWC, Placement(16, 16, 16, 16), size_rule, picture_HWC if keep_picture else None, {"decode": 0.001}
    )


async def postprocess(prediction: Prediction, _wish: AnswerOptions, frame: Frame | None) -> Answer:
    body = b"overlay" if frame is not None and frame.picture_HWC is not None else b"mask"
    return Answer(body, "image/jpeg", prediction.model, 0.5, prediction.times_s)


def predict_as(model: ModelName, size_rule: SizeRule) -> Callable[[Frame], Awaitable[Prediction]]:
    async def predict(frame: Frame) -> Prediction:
        if frame.size_rule != size_rule:
            raise RefitError(size_rule)
        return Prediction(frame.input_HWC[..., 0], frame.placement, 0.5, model, frame.times_s)

    return predict


def ingress_of(red_artefact: Path, model: Callable[[Frame], Awaitable[Prediction]]) -> Ingress:
    manifest = artefact.read(red_artefact).manifest
    return Ingress(Here(preprocess), Here(model), Here(postprocess), args=AppArgs(), manifest=manifest)


def test_a_frame_that_meets_the_next_version_is_fitted_anew(red_artefact: Path) -> None:
    ingress = ingress_of(red_artefact, predict_as(NEW, NEW_RULE))
    assert asyncio.run(ingress.segment(b"", AnswerOptions())).model == NEW


def test_health_follows_the_version_too(red_artefact: Path) -> None:
    assert asyncio.run(ingress_of(red_artefact, predict_as(NEW, NEW_RULE)).probe()) == NEW


def test_both_versions_answer_while_they_change_places(red_artefact: Path) -> None:
    old_rule = artefact.read(red_artefact).manifest.input.size
    old, new = predict_as(OLD, old_rule), predict_as(NEW, NEW_RULE)
    # The first upload meets the new one with the old rule, then the old one with the new rule, then the old one again.
    replicas = iter([new, old, old, new, new])

    async def predict(frame: Frame) -> Prediction:
        return await next(replicas)(frame)

    async def ask() -> list[ModelName]:
        ingress = ingress_of(red_artefact, predict)
        return [(await ingress.segment(b"", AnswerOptions())).model for _ in range(2)]

    assert asyncio.run(ask()) == [OLD, NEW]


def test_a_model_that_always_differs_is_a_problem_and_no_endless_loop(red_artefact: Path) -> None:
    rules = iter(SizeRule(short_side_px=16 + i, max_long_side_px=64, multiple_px=16) for i in range(1000))

    async def predict(_frame: Frame) -> Prediction:
        raise RefitError(next(rules))

    with pytest.raises(ModelUnavailableError, match="Try again"):
        asyncio.run(ingress_of(red_artefact, predict).segment(b"", AnswerOptions()))


def test_a_full_stage_is_told_so(red_artefact: Path) -> None:
    async def predict(_frame: Frame) -> Prediction:
        raise BackPressureError(num_queued_requests=9, max_queued_requests=9)

    with pytest.raises(OverloadedError, match="Try again"):
        asyncio.run(ingress_of(red_artefact, predict).segment(b"", AnswerOptions()))


@pytest.mark.parametrize("lost", [ActorDiedError(), WorkerCrashedError(), RayServeException("an upstream actor died")])
def test_a_replica_that_ends_while_it_works_is_told_and_not_tried_again(red_artefact: Path, lost: Exception) -> None:
    asked = []

    async def predict(_frame: Frame) -> Prediction:
        asked.append(1)
        raise lost

    with pytest.raises(ModelUnavailableError, match="Send it again"):
        asyncio.run(ingress_of(red_artefact, predict).segment(b"", AnswerOptions()))
    assert len(asked) == 1


def test_a_stage_here_takes_so_many_and_no_more() -> None:
    async def ask() -> list[Any]:
        go_on = asyncio.Event()

        async def stage(number: int) -> int:
            await go_on.wait()
            return number

        here = Here(stage, max_requests=2)
        waiting = [here.remote(number) for number in range(3)]
        with pytest.raises(OverloadedError):
            await waiting[2]
        go_on.set()
        first = await asyncio.gather(*waiting[:2])
        return [*first, await here.remote(7)]

    assert asyncio.run(ask()) == [0, 1, 7]


def test_only_an_overlay_carries_the_picture(red_artefact: Path) -> None:
    ingress = ingress_of(red_artefact, predict_as(OLD, artefact.read(red_artefact).manifest.input.size))
    assert asyncio.run(ingress.segment(b"", AnswerOptions())).body == b"mask"
    assert asyncio.run(ingress.segment(b"", AnswerOptions(Format.OVERLAY))).body == b"overlay"


def test_what_is_no_work_is_waiting(red_artefact: Path) -> None:
    async def predict(frame: Frame) -> Prediction:
        await asyncio.sleep(0.05)  # no stage calls this work
        return await predict_as(OLD, frame.size_rule)(frame)

    answer = asyncio.run(ingress_of(red_artefact, predict).segment(b"", AnswerOptions()))
    assert answer.times_s["decode"] == 0.001
    assert answer.times_s["queue"] >= 0.05 - 0.001


def test_what_was_asked_for_is_given_up_with_the_request(red_artefact: Path) -> None:
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
    ingress = Ingress(*stages, args=AppArgs(), manifest=artefact.read(red_artefact).manifest)

    async def ask() -> None:
        await asyncio.wait_for(ingress.segment(b"", AnswerOptions()), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(ask())
    assert sorted(given_up) == ["model", "postprocess", "preprocess"]
