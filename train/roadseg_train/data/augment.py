"""Random crops for training. Every crop is a pure function of its own seed, so that a run can be cut and continued."""

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


class Dice:
    """Random numbers of one crop."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def log_uniform(self, low: float, high: float) -> float:
        """A number in [low, high) whose logarithm is uniform: halving is as likely as doubling."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform(0, 1) < probability

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal float32 numbers in the shape of `like`."""
        return torch.randn(like.shape, generator=self.generator).to(like.device)


def augment(image_CHW: Tensor, truth_CHW: Tensor, config: TrainConfig, seed: int) -> tuple[Tensor, Tensor]:
    """A random crop of a frame.

    Args:
        image_CHW: RGB uint8, at the scale of the program's input.
        truth_CHW: uint8, any number of maps whose 0 says that a pixel is not labelled.
        config: ranges and the crop's size.
        seed: decides the crop.

    Returns:
        RGB uint8 (3, crop_height_px, crop_width_px) and the maps, of the same height and width.
    """
    dice = Dice(seed)
    image_CHW, truth_CHW = _move(image_CHW, truth_CHW, config, dice)
    image_CHW = _degrade(_recolour(image_CHW, config, dice), config, dice)
    return _cover(image_CHW, config, dice), truth_CHW


def _move(image_CHW: Tensor, truth_CHW: Tensor, config: TrainConfig, dice: Dice) -> tuple[Tensor, Tensor]:
    height, width = truth_CHW.shape[-2:]
    scale = dice.log_uniform(*config.scale_range)
    stretch = dice.log_uniform(1 / config.stretch, config.stretch)
    window_height = max(1, round(config.crop_height_px / (scale * stretch)))
    window_width = max(1, round(config.crop_width_px / scale * stretch))
    # Where the window is larger than the frame the rest is filled with black, and void in the target.
    top = round(dice.uniform(min(0, height - window_height), max(0, height - window_height)))
    left = round(dice.uniform(min(0, width - window_width), max(0, width - window_width)))
    size = [config.crop_height_px, config.crop_width_px]
    window = (top, left, window_height, window_width)
    image_CHW = TF.resized_crop(image_CHW, *window, size, InterpolationMode.BILINEAR, antialias=True)
    truth_CHW = TF.resized_crop(truth_CHW, *window, size, InterpolationMode.NEAREST)
    if dice.chance(FLIP_PROBABILITY):
        image_CHW, truth_CHW = TF.horizontal_flip(image_CHW), TF.horizontal_flip(truth_CHW)
    if dice.chance(ROTATE_PROBABILITY):
        angle_deg = dice.uniform(-config.rotation_deg, config.rotation_deg)
        image_CHW = TF.rotate(image_CHW, angle_deg, InterpolationMode.BILINEAR)
        truth_CHW = TF.rotate(truth_CHW, angle_deg, InterpolationMode.NEAREST)
    return image_CHW, truth_CHW


def _recolour(image_CHW: Tensor, config: TrainConfig, dice: Dice) -> Tensor:
    def factor() -> float:
        return dice.uniform(1 - config.colour_jitter, 1 + config.colour_jitter)

    image_CHW = TF.adjust_brightness(image_CHW, factor())
    image_CHW = TF.adjust_contrast(image_CHW, factor())
    image_CHW = TF.adjust_saturation(image_CHW, factor())
    if dice.chance(GAMMA_PROBABILITY):
        image_CHW = TF.adjust_gamma(image_CHW, dice.log_uniform(*config.gamma_range))
    if dice.chance(HUE_PROBABILITY):
        image_CHW = TF.adjust_hue(image_CHW, dice.uniform(-config.hue_jitter, config.hue_jitter))
    return image_CHW


def _degrade(image_CHW: Tensor, config: TrainConfig, dice: Dice) -> Tensor:
    """At most one fault of cheap cameras: blur, noise, JPEG blocks or low resolution."""
    if not dice.chance(config.degrade_probability):
        return image_CHW
    degraded_CHW: Tensor
    match int(dice.uniform(0, 4)):
        case 0:
            degraded_CHW = TF.gaussian_blur(image_CHW, [5, 5], [dice.uniform(*BLUR_SIGMA_PX)])
        case 1:
            noise = dice.normal(image_CHW) * (255 * dice.uniform(*NOISE_SIGMA))
            degraded_CHW = (image_CHW + noise).round().clamp(0, 255).to(torch.uint8)
        case 2:
            degraded_CHW = _through_jpeg(image_CHW, quality=round(dice.uniform(*JPEG_QUALITY)))
        case _:
            height, width = image_CHW.shape[-2:]
            factor = dice.uniform(*LOW_RESOLUTION)
            smaller = [max(1, round(height * factor)), max(1, round(width * factor))]
            degraded_CHW = TF.resize(TF.resize(image_CHW, smaller, antialias=True), [height, width], antialias=True)
    return degraded_CHW


def _cover(image_CHW: Tensor, config: TrainConfig, dice: Dice) -> Tensor:
    """Hide a rectangle behind grey: what is under it has to be told from what is around it."""
    if not dice.chance(config.cover_probability):
        return image_CHW
    height, width = image_CHW.shape[-2:]
    size = [round(side * dice.uniform(*COVER_SHARE)) for side in (height, width)]
    top, left = round(dice.uniform(0, height - size[0])), round(dice.uniform(0, width - size[1]))
    grey = torch.full((3, 1, 1), round(dice.uniform(0, 255)), dtype=torch.uint8, device=image_CHW.device)
    covered_CHW: Tensor = TF.erase(image_CHW, top, left, *size, grey)
    return covered_CHW


def _through_jpeg(image_CHW: Tensor, *, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(image_CHW.permute(1, 2, 0).cpu().numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).to(image_CHW.device)
