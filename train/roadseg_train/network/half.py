"""Weights in half precision: rounded once, before scoring, and stored as float16; arithmetic stays float32.

Batch normalisations are folded into convolutions before rounding. The ONNX exporter and the engines would otherwise
fold them after it, each in its own way.
"""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.fusion import fuse_conv_bn_eval

from roadseg_train.errors import RunError
from roadseg_train.network.model import RoadProgram, UNet


def round_to_half(network: UNet) -> UNet:
    """A copy, in eval mode, whose convolution weights are float32 rounded to float16; raises RunError if not finite."""
    rounded = copy.deepcopy(network)
    for module in list(rounded.modules()):
        _fold_norms(module)
    for convolution in _convolutions(rounded):
        convolution.weight = nn.Parameter(convolution.weight.detach().half().float())
        if not convolution.weight.isfinite().all():
            raise RunError("a weight of the network is not finite in float16; fit again, with a lower learning_rate")
    return rounded


class HalfProgram(nn.Module):
    """A program that stores its weights as float16; its network must come from `round_to_half`."""

    def __init__(self, program: RoadProgram) -> None:
        super().__init__()
        self.program = copy.deepcopy(program)
        for convolution in _convolutions(self.program):
            weight = convolution.weight.detach()
            assert torch.equal(weight, weight.half().float())
            convolution.weight = nn.Parameter(weight.half(), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        """See `RoadProgram`."""
        weights = {name: weight.float() for name, weight in self.program.named_parameters()}
        prob_BHW: Tensor = functional_call(self.program, weights, (image,))
        return prob_BHW


def _fold_norms(module: nn.Module) -> None:
    """Fold every batch normalisation among the children of a module into the convolution before it."""
    for (name, convolution), (norm_name, norm) in pairwise(list(module.named_children())):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.set_submodule(name, fuse_conv_bn_eval(convolution, norm))
            module.set_submodule(norm_name, nn.Identity())


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [inner for inner in module.modules() if isinstance(inner, nn.Conv2d)]
