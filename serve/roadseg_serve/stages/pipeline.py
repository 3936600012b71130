"""The pipeline as HTTP sees it: picture in, answer out, wherever the stages run."""

from dataclasses import replace
from typing import Protocol

import numpy as np

from roadseg_serve.messages import Answer, AnswerOptions, Frame, ModelName, Placement
from roadseg_serve.models.manifest import SizeRule

PROBE_TIMEOUT_S = 5.0
NO_ANSWER = f"No model answered within {PROBE_TIMEOUT_S:g} s. Try again in a moment."
TOO_BUSY = "Too many pictures are waiting. Try again in a moment."


class Pipeline(Protocol):
    """All stages as one."""

    async def segment(self, data: bytes, options: AnswerOptions) -> Answer:
        """Find the road in one picture, the file as uploaded; the answer has the times of all steps.

        Raises:
            RequestError: the picture is refused, the pipeline is full, or no model answers.
        """

    async def probe(self) -> ModelName:
        """Run the model on its smallest input.

        Raises:
            ModelUnavailableError: no answer within `PROBE_TIMEOUT_S`.
            OverloadedError: the pipeline is full.
        """


def probe_frame(size_rule: SizeRule) -> Frame:
    """The smallest frame that a model takes, all black."""
    side_px = size_rule.multiple_px
    input_HWC = np.zeros((side_px, side_px, 3), np.uint8)
    return Frame(input_HWC, Placement(side_px, side_px, side_px, side_px), size_rule)


def with_queue_time(answer: Answer, total_s: float) -> Answer:
    """Add the step `queue`: the part of `total_s`, from upload to answer, in which no stage worked."""
    queue_s = max(0.0, total_s - sum(answer.times_s.values()))
    return replace(answer, times_s={**answer.times_s, "queue": queue_s})
