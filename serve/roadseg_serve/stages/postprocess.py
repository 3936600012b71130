"""From the model's probability to the client's answer, in any format.

Axes: H height, W width, C channel (R, G, B). Probability is uint8: 0 is certainly not road, 255 certainly
road. Masks are uint8, 0 or 255. Pictures are RGB, uint8 in [0, 255].
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

# JPEG makes edges ring; at this quality, ringing never crosses the middle between 0 and 255.
JPEG_QUALITY = 95

# zlib's fastest level; level 6 takes 50 % longer and shrinks a mask from 5 kB to 3 kB.
PNG_COMPRESS_LEVEL = 1

# The green of the web page, and its share in each road pixel: 130 of 255.
ROAD_RGB = (26, 200, 110)
ROAD_OPACITY = np.uint8(130)


def resize_back(prob_HW: UInt8Array, placement: Placement) -> UInt8Array:
    """Undo `preprocess.resize_and_pad`: crop the padding, then resize to the frame's own size (bilinear)."""
    frame = Image.fromarray(prob_HW[: placement.height, : placement.width])
    size = (placement.frame_width, placement.frame_height)
    return np.asarray(frame.resize(size, Image.Resampling.BILINEAR))


def threshold_level(threshold: float) -> int:
    """The lowest 8-bit probability that is road: the smallest integer that is at least threshold * 255.

    The threshold is in [0, 1]; 0 makes every pixel road.
    """
    # Rounded to nine digits, because 51 / 255 * 255 may come out slightly above 51.
    return math.ceil(round(threshold * 255, 9))


def binarise(prob_HW: UInt8Array, threshold: float) -> UInt8Array:
    """The mask_HW: 255 where the probability reaches `threshold_level`, else 0."""
    # True is 1, and -1 in 8 bits is 255; this takes a tenth of the time of numpy.where.
    return np.negative((prob_HW >= threshold_level(threshold)).view(np.uint8))


def overlay(picture_HWC: UInt8Array, mask_HW: UInt8Array) -> UInt8Array:
    """An image_HWC with coloured road: round((125 * picture + 130 * ROAD_RGB) / 255) on road, unchanged elsewhere."""
    image = Image.fromarray(picture_HWC)
    image.paste(ROAD_RGB, mask=Image.fromarray(mask_HW & ROAD_OPACITY))
    return np.asarray(image)


def encode_jpeg(image: UInt8Array) -> bytes:
    """A mask_HW as 8-bit grey JPEG, in which pixels from 128 on are 255 in the mask; or an image_HWC as RGB JPEG."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def encode_png(image_HW: UInt8Array) -> bytes:
    """A mask or a probability as 8-bit grey PNG."""
    buffer = BytesIO()
    Image.fromarray(image_HW).save(buffer, "PNG", compress_level=PNG_COMPRESS_LEVEL)
    return buffer.getvalue()


def answer(
    prediction: Prediction, options: AnswerOptions, frame: Frame | None, default_threshold: float | None
) -> Answer:
    """The answer to one upload.

    Only an overlay needs the `frame`, with its `picture_HWC`. `default_threshold` in [0, 1] is used if the options have
    none; None means the model's own.
    """
    started_s = time.perf_counter()
    thresholds = (options.threshold, default_threshold, prediction.threshold)
    threshold = next(threshold for threshold in thresholds if threshold is not None)
    prob_HW = resize_back(prediction.prob_HW, prediction.placement)
    mask_HW = binarise(prob_HW, threshold)
    road_share = float(np.count_nonzero(mask_HW)) / mask_HW.size
    match options.format:
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
            facts = {"road_share": road_share, "threshold": threshold}
            document = findings(mask_HW, encode_png(mask_HW), model=prediction.model, **facts)
            body = document.model_dump_json().encode()
    times_s = {**prediction.times_s, "encode": time.perf_counter() - started_s}
    return Answer(body, MEDIA_TYPES[options.format], prediction.model, road_share, times_s)


class Postprocess:
    """The stage: `Prediction` in, `Answer` out. `threshold` is for requests without one; see `answer`."""

    def __init__(self, *, threshold: float | None) -> None:
        self._threshold = threshold

    async def __call__(self, prediction: Prediction, options: AnswerOptions, frame: Frame | None = None) -> Answer:
        """See `answer`."""
        with trace.span("postprocess"):
            return await asyncio.to_thread(answer, prediction, options, frame, self._threshold)
