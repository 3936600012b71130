"""Synthetic weather and camera faults: pure functions of an image, a severity and a seed.

Every function takes and returns image_HWC, RGB uint8, of any size; lengths in pixels are for an image 360 high and
scale with its height. Source of a fixed set of corruptions by severity: Hendrycks and Dietterich 2019 (arXiv
1903.12261), for street scenes Kamann and Rother 2020 (arXiv 1908.05005).
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from roadseg_train.data.dataset import UInt8Array
from roadseg_train.metrics import FloatArray

SEVERITIES = (1, 2, 3)

# The row of a pixel gives its assumed distance: flat ground below the horizon; above it houses and trees, modelled as a
# ceiling over the street. A row that is v image heights from the horizon is h * FOCAL / v metres away, where h is the
# height of the camera above the ground, or of the ceiling above the camera. The focal length is KITTI's, 1.92 image
# heights. At the horizon the distance levels off at FAR_M.
HORIZON, FOCAL, CAMERA_HEIGHT_M, CEILING_HEIGHT_M, FAR_M = 0.45, 1.92, 1.65, 10.0, 80.0

FOG_PER_M = (0.01, 0.03, 0.06)  # extinction; visibility is 3.912 / extinction: 390, 130 and 65 m
DARK_EXPOSURE = (1 / 4, 1 / 10, 1 / 25)  # fraction of the light
DARK_FULL_WELL, DARK_READ_NOISE = 4000.0, 4.0  # electrons: white at full light, and read-out noise
BLUR_RADIUS_PX = (1.5, 3.0, 6.0)
NOISE_SIGMA = (0.06, 0.12, 0.2)  # of the range
JPEG_QUALITY = (20, 10, 5)
RAIN_STREAKS = (150, 350, 700)
RAIN_HAZE_PER_M = (0.004, 0.008, 0.012)

GAMMA = 2.2  # from pixel values to linear light, in which light adds up
REFERENCE_HEIGHT_PX = 360


def fog(image_HWC: UInt8Array, severity: int, _rng: np.random.Generator) -> UInt8Array:
    """Fog absorbs the light of distant objects and adds grey airlight (Koschmieder 1924).

    light = object * t + airlight * (1 - t), with t = exp(-extinction * distance). The airlight is as bright as the
    brightest 5 % of the image. Source: Sakaridis et al. 2018 (arXiv 1708.07819), with measured distances.
    """
    return _from_light(_haze(_to_light(image_HWC), FOG_PER_M[severity - 1]))


def dark(image_HWC: UInt8Array, severity: int, rng: np.random.Generator) -> UInt8Array:
    """Less light, with photon and read-out noise: the photon transfer model of EMVA standard 1288."""
    electrons = _to_light(image_HWC) * DARK_EXPOSURE[severity - 1] * DARK_FULL_WELL
    measured = rng.poisson(electrons) + rng.normal(0, DARK_READ_NOISE, electrons.shape)
    return _from_light(measured / DARK_FULL_WELL)


def blur(image_HWC: UInt8Array, severity: int, _rng: np.random.Generator) -> UInt8Array:
    """Out of focus: every point becomes a disc."""
    height, width = image_HWC.shape[:2]
    radius_px = BLUR_RADIUS_PX[severity - 1] * height / REFERENCE_HEIGHT_PX
    margin = int(np.ceil(radius_px)) + 1
    padded = np.pad(_to_light(image_HWC), ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    rows, columns = (np.minimum(np.arange(n), n - np.arange(n)) for n in padded.shape[:2])
    disc_HW = np.clip(radius_px + 0.5 - np.hypot(rows[:, None], columns), 0, 1)  # antialiased
    spread = np.fft.rfft2(disc_HW / disc_HW.sum())[..., None] * np.fft.rfft2(padded, axes=(0, 1))
    blurred = np.fft.irfft2(spread, s=padded.shape[:2], axes=(0, 1))
    return _from_light(blurred[margin : margin + height, margin : margin + width])


def noise(image_HWC: UInt8Array, severity: int, rng: np.random.Generator) -> UInt8Array:
    """Gaussian noise, like a sensor at high gain."""
    return _to_bytes(image_HWC / 255 + rng.normal(0, NOISE_SIGMA[severity - 1], image_HWC.shape))


def jpeg(image_HWC: UInt8Array, severity: int, _rng: np.random.Generator) -> UInt8Array:
    """JPEG compression with visible blocks."""
    file = io.BytesIO()
    Image.fromarray(image_HWC).save(file, "JPEG", quality=JPEG_QUALITY[severity - 1])
    return np.array(Image.open(file))


def rain(image_HWC: UInt8Array, severity: int, rng: np.random.Generator) -> UInt8Array:
    """Bright slanted streaks, longer for near drops, over a slight haze.

    Source: streaks as motion-blurred drops, Garg and Nayar 2006; distant drops as fog, Halder et al. 2019 (arXiv
    1908.10335).
    """
    height, width = image_HWC.shape[:2]
    scale = height / REFERENCE_HEIGHT_PX
    streaks = Image.new("L", (width, height))
    draw = ImageDraw.Draw(streaks)
    slant = rng.uniform(-0.3, 0.3)
    num_streaks = round(RAIN_STREAKS[severity - 1] * width / height / (4 / 3))
    nearness = rng.uniform(0.2, 1, num_streaks) ** 2
    for near, x, y in zip(nearness, rng.uniform(0, width, num_streaks), rng.uniform(-0.1, 1, num_streaks), strict=True):
        length, top = 50 * near * scale, y * height
        tail = (x + slant * length, top + length)
        draw.line((x, top, *tail), fill=round(40 + 60 * near), width=max(1, round(1.5 * near * scale)))
    opacity_HW1 = np.asarray(streaks.filter(ImageFilter.GaussianBlur(0.6 * scale)))[..., None] / 255
    light = _haze(_to_light(image_HWC), RAIN_HAZE_PER_M[severity - 1])
    return _from_light(light + (_airlight(light) - light) * opacity_HW1)


Corrupt = Callable[[UInt8Array, int, np.random.Generator], UInt8Array]
CORRUPTIONS: dict[str, Corrupt] = {"fog": fog, "rain": rain, "dark": dark, "blur": blur, "noise": noise, "JPEG": jpeg}


def corrupt(image_HWC: UInt8Array, kind: str, severity: int, seed: int) -> UInt8Array:
    """Apply one of `CORRUPTIONS` at severity 1, 2 or 3."""
    return CORRUPTIONS[kind](image_HWC, severity, np.random.default_rng(seed))


def distance_m(height: int) -> FloatArray:
    """The assumed distance of each row of an image, in metres, float64 (height,)."""
    below_horizon = (np.arange(height) + 0.5) / height - HORIZON
    reach_m = np.where(below_horizon > 0, CAMERA_HEIGHT_M, CEILING_HEIGHT_M) * FOCAL
    return reach_m / (np.abs(below_horizon) + reach_m / FAR_M)


def _haze(light_HWC: FloatArray, extinction_per_m: float) -> FloatArray:
    transmission_H11 = np.exp(-extinction_per_m * distance_m(light_HWC.shape[0]))[:, None, None]
    return light_HWC * transmission_H11 + _airlight(light_HWC) * (1 - transmission_H11)


def _airlight(light_HWC: FloatArray) -> float:
    return float(np.percentile(light_HWC.mean(axis=2), 95))


def _to_light(image_HWC: UInt8Array) -> FloatArray:
    return np.power(image_HWC / 255, GAMMA)


def _from_light(light_HWC: FloatArray) -> UInt8Array:
    return _to_bytes(np.clip(light_HWC, 0, 1) ** (1 / GAMMA))


def _to_bytes(values_HWC: FloatArray) -> UInt8Array:
    return np.clip(values_HWC * 255 + 0.5, 0, 255).astype(np.uint8)
