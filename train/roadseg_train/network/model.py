"""The network: a residual U-Net for images of any height and width.

The stem halves the resolution and the head predicts 2x2 pixels at once, so most work is done at half the resolution
while the mask keeps the full one.

Source: U-Net, Ronneberger et al. 2015 (arXiv 1505.04597); residual blocks, He et al. 2016 (arXiv 1603.05027); sub-pixel
head, Shi et al. 2016 (arXiv 1609.05158).
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadseg_train.data.dataset import NUM_CLASSES
from roadseg_train.network.views import Views

# Maps uint8 to about unit variance for street scenes; part of the program so that no caller can do it differently.
PIXEL_MEAN, PIXEL_STD = 0.4 * 255, 0.25 * 255


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `stride` 2 halves the resolution (rounding up)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class Encoder(nn.Module):
    """A stem, then one halving block for each width after the first."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        self.blocks = nn.ModuleList(ResidualBlock(narrow, wide, stride=2) for narrow, wide in pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> features at 1/2, 1/4, 1/8, ... of the size, rounded up."""
        features = [self.stem(x)]
        for block in self.blocks:
            features.append(block(features[-1]))
        return features


class Decoder(nn.Module):
    """From the smallest features back up, joining the skip connection of each size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(below + skip, skip) for below, skip in pairwise(reversed(widths)))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of `Encoder` -> (B, widths[0], ceil(H / 2), ceil(W / 2))."""
        x = features[-1]
        for block, skip in zip(self.blocks, reversed(features[:-1]), strict=True):
            # To the skip's size rather than by 2, because odd sides are rounded up on the way down.
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = block(torch.cat((x, skip), dim=1))
        return x


class UNet(nn.Module):
    """Normalised images in, road logits out; `widths` are the channels at 1/2, 1/4, 1/8, ... of the resolution."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(widths), Decoder(widths)
        self.head = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) float, normalised -> road logits (B, H, W)."""
        return self.road(self.features(image_BCHW), *image_BCHW.shape[-2:])

    def features(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) float, normalised -> input of the head (B, widths[0], ceil(H / 2), ceil(W / 2))."""
        features: Tensor = self.decoder(self.encoder(image_BCHW))
        return features

    def road(self, features_BCHW: Tensor, height: int, width: int) -> Tensor:
        """Features of an image of `height` x `width` -> road logits (B, height, width)."""
        return F.pixel_shuffle(self.head(features_BCHW), 2)[:, 0, :height, :width]


class AuxHeadUNet(nn.Module):
    """The U-Net in training: a second head, never published, predicts classes, so features learn what is not road."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.unet = UNet(widths)
        self.classes = nn.Conv2d(widths[0], NUM_CLASSES, 1)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) float, normalised -> road logits (B, H, W), class logits (B, classes, ceil(H/2), ceil(W/2))."""
        features = self.unet.features(image_BCHW)
        return self.unet.road(features, *image_BCHW.shape[-2:]), self.classes(features)


def normalise(image_BCHW: Tensor) -> Tensor:
    """RGB uint8 -> float32 of about zero mean and unit variance, same shape."""
    return (image_BCHW.float() - PIXEL_MEAN) / PIXEL_STD


class RoadProgram(nn.Module):
    """What is published: RGB uint8 in, road probability out, the mean over all views of the image."""

    def __init__(self, network: UNet, *, views: Views | None = None) -> None:
        super().__init__()
        self.network = network
        self.views = views or Views()

    def forward(self, image: Tensor) -> Tensor:
        """`image` (B, H, W, 3) uint8 RGB -> road probability (B, H, W), float32 in [0, 1]."""
        image_BCHW = normalise(image.permute(0, 3, 1, 2))
        if self.views.mirror:
            image_BCHW = torch.cat((image_BCHW, image_BCHW.flip(3)))  # one batch is faster than two
        probs_BHW = [self._predict(image_BCHW, Fraction(scale).limit_denominator(64)) for scale in self.views.scales]
        prob_BHW = torch.stack(probs_BHW).mean(0) if len(probs_BHW) > 1 else probs_BHW[0]
        if self.views.mirror:
            prob_BHW, mirrored_BHW = prob_BHW.unflatten(0, (2, -1))
            prob_BHW = (prob_BHW + mirrored_BHW.flip(2)) / 2
        return prob_BHW

    def _predict(self, image_BCHW: Tensor, scale: Fraction) -> Tensor:
        """(B, 3, H, W) float, normalised -> road probability (B, H, W), predicted at this scale."""
        height, width = image_BCHW.shape[-2:]
        if scale != 1:
            # In integers, so that an exported program works for any size.
            size = [side * scale.numerator // scale.denominator for side in (height, width)]
            image_BCHW = F.interpolate(image_BCHW, size=size, mode="bilinear")
        # To float32 before averaging; autocast returns bfloat16.
        prob_BHW = torch.sigmoid(self.network(image_BCHW)).float()
        if scale != 1:
            prob_BHW = F.interpolate(prob_BHW[:, None], size=[height, width], mode="bilinear")[:, 0]
        return prob_BHW
