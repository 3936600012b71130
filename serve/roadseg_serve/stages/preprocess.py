"""From uploaded bytes to the model's input: decode any picture to RGB, then resize and pad it.

Axes: H height, W width, C channel (R, G, B). Pictures are uint8 in [0, 255].
"""

import asyncio
import math
import time
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from roadseg_serve import errors
from roadseg_serve.messages import Frame, Placement, UInt8Array
from roadseg_serve.models.manifest import SizeRule
from roadseg_serve.observe import trace
from roadseg_serve.settings import AppArgs

# Raster formats that Pillow recognises by their first bytes. Not EPS, for which it would start Ghostscript.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")

# Pillow cannot write a JPEG with a longer side.
MAX_SIDE_PX = 65_500

# A progressive JPEG has about ten scans. Each costs as much as a whole picture but may be as short as 14 bytes, so a
# file of a megabyte could keep a CPU busy for an hour. libtiff has the same limit.
MAX_JPEG_SCANS = 100
START_OF_SCAN = b"\xff\xda"  # cannot occur within a scan: there a zero follows every 255

# EXIF orientation to the transposition that turns the stored picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Limits:
    """Limits of an upload."""

    max_upload_bytes: int
    max_pixels: int  # width times height

    @classmethod
    def of(cls, args: AppArgs) -> "Limits":
        """The limits in the settings."""
        return cls(max_upload_bytes=args.max_upload_bytes, max_pixels=args.max_pixels)


def decode(data: bytes, limits: Limits) -> UInt8Array:
    """Decode any still picture to upright RGB.

    Transparent pixels become black, an animation is cut to its first frame, and EXIF orientation is applied. 16-bit
    grey (modes I;16 and I) is scaled from [0, 65535] to [0, 255]; floating point (mode F) is clipped to [0, 255].
    Before anything is decoded, the limits are checked against the file and against the header of the picture.

    Returns:
        image_HWC, RGB, uint8 in [0, 255].

    Raises:
        EmptyFileError: no bytes.
        UploadTooLargeError: more bytes than the limit.
        NotAnImageError: none of `FORMATS`.
        ImageTooLargeError: more pixels than the limit, or a side over `MAX_SIDE_PX`.
        DamagedImageError: it cannot be decoded, or has more than `MAX_JPEG_SCANS`.
    """
    if not data:
        raise errors.EmptyFileError("The file is empty. It must be a picture.")
    if len(data) > limits.max_upload_bytes:
        raise upload_too_large(limits.max_upload_bytes)
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise errors.NotAnImageError(
            f"The file is not a picture in a known format. Use one of: {', '.join(FORMATS)}."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _image_too_large(limits.max_pixels) from error
    except Exception as error:  # whatever a decoder raises, the bytes are the cause
        raise _damaged(error) from error
    if image.width * image.height > limits.max_pixels or max(image.size) > MAX_SIDE_PX:
        raise _image_too_large(limits.max_pixels)
    if image.format in ("JPEG", "MPO") and data.count(START_OF_SCAN) > MAX_JPEG_SCANS:
        raise _damaged(f"more than {MAX_JPEG_SCANS} scans")
    try:
        image.load()
        rgb = _to_rgb(image)
    except Exception as error:  # as above: Pillow's decoders raise a dozen unrelated types
        raise _damaged(error) from error
    orientation = _orientation(image)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    return np.asarray(rgb)


def resize_and_pad(image_HWC: UInt8Array, size_rule: SizeRule, *, keep_picture: bool = False) -> Frame:
    """Resize a picture to the model's input size, keep its aspect ratio, and pad it.

    Scale by s = min(short_side_px / short side, max_long_side_px / long side), each side to
    floor(side * s + 0.5) and at least 1 px, bilinear and antialiased; then repeat the right and bottom
    edge up to multiples of multiple_px. With `keep_picture`, the frame also carries the picture itself.
    """
    frame_height, frame_width = image_HWC.shape[:2]
    scale = min(
        size_rule.short_side_px / min(frame_height, frame_width),
        size_rule.max_long_side_px / max(frame_height, frame_width),
    )
    height = max(1, math.floor(frame_height * scale + 0.5))
    width = max(1, math.floor(frame_width * scale + 0.5))
    scaled = Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BILINEAR)
    padding = ((0, -height % size_rule.multiple_px), (0, -width % size_rule.multiple_px), (0, 0))
    return Frame(
        input_HWC=np.pad(np.asarray(scaled), padding, mode="edge"),
        placement=Placement(frame_height=frame_height, frame_width=frame_width, height=height, width=width),
        size_rule=size_rule,
        picture_HWC=image_HWC if keep_picture else None,
    )


def frame_of(data: bytes, limits: Limits, size_rule: SizeRule, *, keep_picture: bool) -> Frame:
    """`decode`, then `resize_and_pad`, with the time of both."""
    started_s = time.perf_counter()
    image_HWC = decode(data, limits)
    decoded_s = time.perf_counter()
    frame = resize_and_pad(image_HWC, size_rule, keep_picture=keep_picture)
    times_s = {"decode": decoded_s - started_s, "resize": time.perf_counter() - decoded_s}
    return replace(frame, times_s=times_s)


class Preprocess:
    """Uploaded bytes in, `Frame` out. It has no model, so that it can serve two versions during a model change."""

    def __init__(self, *, limits: Limits) -> None:
        self._limits = limits

    async def __call__(self, data: bytes, size_rule: SizeRule, *, keep_picture: bool) -> Frame:
        """See `frame_of`; raises what `decode` raises."""
        with trace.span("preprocess"):
            return await asyncio.to_thread(frame_of, data, self._limits, size_rule, keep_picture=keep_picture)


def upload_too_large(max_upload_bytes: int) -> errors.UploadTooLargeError:
    """The error for an upload over the limit."""
    return errors.UploadTooLargeError(
        f"The file is larger than {max_upload_bytes / 1e6:g} MB. Make the picture smaller, or compress it more."
    )


def _image_too_large(max_pixels: int) -> errors.ImageTooLargeError:
    return errors.ImageTooLargeError(
        f"The picture has more than {max_pixels / 1e6:g} megapixels or a side over {MAX_SIDE_PX} pixels. Scale it down."
    )


def _damaged(reason: Exception | str) -> errors.DamagedImageError:
    reason = str(reason) or type(reason).__name__
    return errors.DamagedImageError(
        f"The picture cannot be decoded ({reason}). Save it again, or copy the whole file again."
    )


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation, or None: damaged metadata is no reason to refuse a picture."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's EXIF reader raises many unrelated types
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to 8-bit RGB."""
    if image.mode.startswith("I"):
        grey_HW = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        # 65535 / 255 = 257; adding half of 257 rounds to nearest.
        return Image.fromarray(((grey_HW + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey_HW = np.clip(np.nan_to_num(np.asarray(image)), 0, 255)
        return Image.fromarray(np.floor(grey_HW + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return image.convert("RGB")
