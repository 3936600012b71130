"""Random training crops. Each crop is a pure function of its own seed, so that a run can be interrupted and resumed.

torchvision's functions do the work. Its random transforms would not do: they draw from the global generator, and crop a
tv_tensors.Mask with NEAREST, which moves the labels by half a pixel.
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from roadseg_train.config import TrainConfig

JPEG_QUALITY = (30, 90)
BLUR_SIGMA_PX = (0.5, 1.5)
NOISE_SIGMA = (0.01, 0.06)
LOW_RESOLUTION = (0.4, 0.9)
ROTATE_PROBABILITY = 0.5
GAMMA_PROBABILITY = 0.5
HUE_PROBABILITY = 0.15
FLIP_PROBABILITY = 0.5
COVER_SHARE = (0.1, 0.4)


class Rng:
    """The random numbers of one crop."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def log_uniform(self, low: float, high: float) -> float:
        """A number in [low, high) whose logarithm is uniform, so that halving is as likely as doubling."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform(0, 1) < probability


def augment(image_CHW: Tensor, labels_CHW: Tensor, config: TrainConfig, seed: int) -> tuple[Tensor, Tensor]:
    """The crop of a frame that `seed` decides: RGB uint8 (3, crop_height_px, crop_width_px), and its label maps.

    The frame is RGB uint8 at the scale of the model input, with any number of uint8 label maps; 0 means not labelled.
    """
    rng = Rng(seed)
    image_CHW, labels_CHW = _move(image_CHW, labels_CHW, config, rng)
    image_CHW = _degrade(_recolour(image_CHW, config, rng), config, rng)
    return _cover(image_CHW, config, rng), labels_CHW


def _move(image_CHW: Tensor, labels_CHW: Tensor, config: TrainConfig, rng: Rng) -> tuple[Tensor, Tensor]:
    height, width = labels_CHW.shape[-2:]
    scale = rng.log_uniform(*config.scale_range)
    stretch = rng.log_uniform(1 / config.stretch, config.stretch)
    window_height = max(1, round(config.crop_height_px / (scale * stretch)))
    window_width = max(1, round(config.crop_width_px / scale * stretch))
    # A window larger than the frame is padded with black, and with void in the labels.
    top = round(rng.uniform(min(0, height - window_height), max(0, height - window_height)))
    left = round(rng.uniform(min(0, width - window_width), max(0, width - window_width)))
    size = [config.crop_height_px, config.crop_width_px]
    window = (top, left, window_height, window_width)
    image_CHW = TF.resized_crop(image_CHW, *window, size, InterpolationMode.BILINEAR, antialias=True)
    labels_CHW = TF.resized_crop(labels_CHW, *window, size, InterpolationMode.NEAREST_EXACT)
    if rng.chance(FLIP_PROBABILITY):
        image_CHW, labels_CHW = TF.horizontal_flip(image_CHW), TF.horizontal_flip(labels_CHW)
    if rng.chance(ROTATE_PROBABILITY):
        angle_deg = rng.uniform(-config.rotation_deg, config.rotation_deg)
        image_CHW = TF.rotate(image_CHW, angle_deg, InterpolationMode.BILINEAR)
        labels_CHW = TF.rotate(labels_CHW, angle_deg, InterpolationMode.NEAREST)
    return image_CHW, labels_CHW


def _recolour(image_CHW: Tensor, config: TrainConfig, rng: Rng) -> Tensor:
    for adjust in (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation):
        image_CHW = adjust(image_CHW, rng.uniform(1 - config.colour_jitter, 1 + config.colour_jitter))
    if rng.chance(GAMMA_PROBABILITY):
        image_CHW = TF.adjust_gamma(image_CHW, rng.log_uniform(*config.gamma_range))
    if rng.chance(HUE_PROBABILITY):
        image_CHW = TF.adjust_hue(image_CHW, rng.uniform(-config.hue_jitter, config.hue_jitter))
    return image_CHW


def _degrade(image_CHW: Tensor, config: TrainConfig, rng: Rng) -> Tensor:
    """Apply at most one fault of cheap cameras: blur, noise, JPEG artefacts or low resolution."""
    if not rng.chance(config.degrade_probability):
        return image_CHW
    match int(rng.uniform(0, 4)):
        case 0:
            image_CHW = TF.gaussian_blur(image_CHW, [5, 5], [rng.uniform(*BLUR_SIGMA_PX)])
        case 1:
            noise_CHW = torch.randn(image_CHW.shape, generator=rng.generator).to(image_CHW.device)
            noise_CHW *= 255 * rng.uniform(*NOISE_SIGMA)
            image_CHW = (image_CHW + noise_CHW).round().clamp(0, 255).to(torch.uint8)
        case 2:
            file = io.BytesIO()  # by Pillow, because torchvision's own encoder is deprecated
            picture = Image.fromarray(image_CHW.permute(1, 2, 0).cpu().numpy())
            picture.save(file, "JPEG", quality=round(rng.uniform(*JPEG_QUALITY)))
            image_CHW = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).to(image_CHW.device)
        case _:
            height, width = image_CHW.shape[-2:]
            factor = rng.uniform(*LOW_RESOLUTION)
            smaller = [max(1, round(height * factor)), max(1, round(width * factor))]
            image_CHW = TF.resize(TF.resize(image_CHW, smaller, antialias=True), [height, width], antialias=True)
    return image_CHW


def _cover(image_CHW: Tensor, config: TrainConfig, rng: Rng) -> Tensor:
    """Hide a rectangle behind grey, so that its labels must be inferred from the surroundings."""
    if not rng.chance(config.cover_probability):
        return image_CHW
    height, width = image_CHW.shape[-2:]
    size = [round(side * rng.uniform(*COVER_SHARE)) for side in (height, width)]
    top, left = round(rng.uniform(0, height - size[0])), round(rng.uniform(0, width - size[1]))
    grey = torch.full((3, 1, 1), round(rng.uniform(0, 255)), dtype=torch.uint8, device=image_CHW.device)
    covered_CHW: Tensor = TF.erase(image_CHW, top, left, *size, grey)
    return covered_CHW
