"""From the model's probability to the mask that the client gets.

Axes: H height, W width. Probability is uint8: 0 is surely not road, 255 surely road. Masks are 0 or 255.
"""

import asyncio
import math
import time
from io import BytesIO

import numpy as np
from PIL import Image

from roadseg_serve.messages import Answer, Bytes, Format, Frame, Placement, Prediction, Wish

# Edges ring in a JPEG; at this quality the ringing stays far below the step from 0 to 255.
JPEG_QUALITY = 95


def unfit(prob_HW: Bytes, placement: Placement) -> Bytes:
    """Undo `preprocess.fit`: crop the padding, resize to the frame's own size (bilinear).

    Args:
        prob_HW: road probability in input coordinates, uint8 in [0, 255].
        placement: where `fit` put the frame.

    Returns:
        prob_HW of shape (placement.frame_height, placement.frame_width), uint8 in [0, 255].
    """
    frame = Image.fromarray(prob_HW[: placement.height, : placement.width])
    size = (placement.frame_width, placement.frame_height)
    return np.asarray(frame.resize(size, Image.Resampling.BILINEAR))


def threshold_level(threshold: float) -> int:
    """The least 8-bit probability that is road: the smallest integer that is at least threshold * 255.

    A threshold of 0.5 gives level 128, which `predict.quantise` gives to probabilities from 0.5 on.

    Args:
        threshold: in [0, 1]; 0 makes every pixel road.
    """
    # Nine digits: 51 / 255 * 255 is 51, whatever the last bit of the product says.
    return math.ceil(round(threshold * 255, 9))


def binarise(prob_HW: Bytes, threshold: float) -> Bytes:
    """Road or not: 255 where the probability reaches `threshold_level`, else 0.

    Args:
        prob_HW: road probability, uint8 in [0, 255].
        threshold: in [0, 1].

    Returns:
        mask_HW, uint8, 0 or 255.
    """
    return np.where(prob_HW >= threshold_level(threshold), np.uint8(255), np.uint8(0))


def encode(mask_HW: Bytes) -> bytes:
    """The mask as an 8-bit grey JPEG; its pixels from 128 on are the mask's 255."""
    buffer = BytesIO()
    Image.fromarray(mask_HW).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def answer(prediction: Prediction, wish: Wish, frame: Frame | None, default_threshold: float | None) -> Answer:
    """The answer to one upload; see `Postprocess`."""
    assert frame is None or wish.format is Format.OVERLAY
    started_s = time.perf_counter()
    own_threshold = prediction.threshold if default_threshold is None else default_threshold
    prob_HW = unfit(prediction.prob_HW, prediction.placement)
    mask_HW = binarise(prob_HW, own_threshold if wish.threshold is None else wish.threshold)
    body = encode(mask_HW)
    return Answer(
        body=body,
        media_type="image/jpeg",
        model=prediction.model,
        road_share=float(np.count_nonzero(mask_HW)) / mask_HW.size,
        times_s={**prediction.times_s, "encode": time.perf_counter() - started_s},
    )


class Postprocess:
    """The stage: `Prediction` in, `Answer` out.

    Args:
        threshold: in [0, 1], instead of the model's own, where the wish names none.
    """

    def __init__(self, *, threshold: float | None) -> None:
        self._threshold = threshold

    async def __call__(self, prediction: Prediction, wish: Wish, frame: Frame | None = None) -> Answer:
        """Make the answer to one upload.

        Args:
            prediction: of the model.
            wish: what the client asked for.
            frame: with `picture_HWC`, where the wish is an overlay.
        """
        return await asyncio.to_thread(answer, prediction, wish, frame, self._threshold)
