"""From the model's probability to the answer that the client gets, in any format.

Axes: H height, W width, C channel (R, G, B). Probability is uint8: 0 is surely not road, 255 surely road. Masks are 0
or 255.
"""

import asyncio
import math
import time
from io import BytesIO

import numpy as np
from PIL import Image

from roadseg_serve.messages import MEDIA_TYPES, Answer, AnswerOptions, Format, Frame, Placement, Prediction, UInt8Array
from roadseg_serve.observe import trace
from roadseg_serve.stages.findings import findings

# Edges ring in a JPEG; at this quality the ringing stays far below the step from 0 to 255.
JPEG_QUALITY = 95

# zlib's quickest: level 6 takes half as long again and makes a mask of 5 kB one of 3.
PNG_COMPRESS_LEVEL = 1

# The green of the web page, and how much of it there is in each pixel of road: 130 of 255.
ROAD_RGB = (26, 200, 110)
ROAD_OPACITY = np.uint8(130)


def unfit(prob_HW: UInt8Array, placement: Placement) -> UInt8Array:
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


def binarise(prob_HW: UInt8Array, threshold: float) -> UInt8Array:
    """Road or not: 255 where the probability reaches `threshold_level`, else 0.

    Args:
        prob_HW: road probability, uint8 in [0, 255].
        threshold: in [0, 1].

    Returns:
        mask_HW, uint8, 0 or 255.
    """
    # True is 1, and 1 negated in 8 bits is 255: a tenth of the time that a choice between 255 and 0 takes.
    return np.negative((prob_HW >= threshold_level(threshold)).view(np.uint8))


def overlay(picture_HWC: UInt8Array, mask_HW: UInt8Array) -> UInt8Array:
    """The picture with the road coloured: round((125 * picture + 130 * ROAD_RGB) / 255) on road, untouched elsewhere.

    Args:
        picture_HWC: RGB in [0, 255].
        mask_HW: of the same size, 0 or 255.

    Returns:
        image_HWC, RGB in [0, 255].
    """
    image = Image.fromarray(picture_HWC)
    image.paste(ROAD_RGB, mask=Image.fromarray(mask_HW & ROAD_OPACITY))
    return np.asarray(image)


def encode_jpeg(image: UInt8Array) -> bytes:
    """A mask_HW as 8-bit grey JPEG, of which the pixels from 128 on are the mask's 255; or an image_HWC as RGB JPEG."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def encode_png(image_HW: UInt8Array) -> bytes:
    """A mask or a probability as 8-bit grey PNG, without loss."""
    buffer = BytesIO()
    Image.fromarray(image_HW).save(buffer, "PNG", compress_level=PNG_COMPRESS_LEVEL)
    return buffer.getvalue()


def answer(prediction: Prediction, wish: AnswerOptions, frame: Frame | None, default_threshold: float | None) -> Answer:
    """The answer to one upload.

    Args:
        prediction: of the model.
        wish: what the client asked for.
        frame: with `picture_HWC`, where the wish is an overlay.
        default_threshold: in [0, 1], instead of the model's own, where the wish names none.
    """
    started_s = time.perf_counter()
    thresholds = (wish.threshold, default_threshold, prediction.threshold)
    threshold = next(threshold for threshold in thresholds if threshold is not None)
    prob_HW = unfit(prediction.prob_HW, prediction.placement)
    mask_HW = binarise(prob_HW, threshold)
    road_share = float(np.count_nonzero(mask_HW)) / mask_HW.size
    match wish.format:
        case Format.JPEG:
            body = encode_jpeg(mask_HW)
        case Format.PNG:
            body = encode_png(mask_HW)
        case Format.PROBABILITY:
            body = encode_png(prob_HW)
        case Format.OVERLAY:
            assert frame is not None
            assert frame.picture_HWC is not None
            body = encode_jpeg(overlay(frame.picture_HWC, mask_HW))
        case Format.JSON:
            document = findings(
                mask_HW,
                encode_png(mask_HW),
                road_share=road_share,
                threshold=threshold,
                model=prediction.model,
            )
            body = document.model_dump_json().encode()
    return Answer(
        body=body,
        media_type=MEDIA_TYPES[wish.format],
        model=prediction.model,
        road_share=road_share,
        times_s={**prediction.times_s, "encode": time.perf_counter() - started_s},
    )


class Postprocess:
    """The stage: `Prediction` in, `Answer` out.

    Args:
        threshold: in [0, 1], instead of the model's own, where the wish names none.
    """

    def __init__(self, *, threshold: float | None) -> None:
        self._threshold = threshold

    async def __call__(self, prediction: Prediction, wish: AnswerOptions, frame: Frame | None = None) -> Answer:
        """See `answer`."""
        with trace.span("postprocess"):
            return await asyncio.to_thread(answer, prediction, wish, frame, self._threshold)
