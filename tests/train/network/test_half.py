import pytest
import torch
from torch import nn

from roadseg_train.errors import RunError
from roadseg_train.network.half import HalfProgram, round_to_half
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.network.views import Views


def used(seed: int) -> UNet:
    """A network whose normalisations have statistics and weights of their own, as after a training."""
    torch.manual_seed(seed)
    network = UNet((4, 8, 12))
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    with torch.no_grad():
        network.train()(2 * torch.randn(4, 3, 32, 32) + 1)
    return network.eval()


def test_it_computes_the_same_but_for_the_rounding() -> None:
    network = used(0)
    image_BCHW = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        difference = (
            (torch.sigmoid(round_to_half(network)(image_BCHW)) - torch.sigmoid(network(image_BCHW))).abs().max()
        )
    assert 0 < difference < 0.5 / 255  # half a level of what is served; float16 has 11 bits


def test_norms_are_gone_and_weights_are_those_of_float16() -> None:
    rounded = round_to_half(used(0))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in rounded.modules())
    for convolution in rounded.modules():
        if isinstance(convolution, nn.Conv2d):
            assert convolution.weight.dtype == torch.float32
            torch.testing.assert_close(convolution.weight.half().float(), convolution.weight, rtol=0, atol=0)


def test_the_network_itself_is_left_alone_and_twice_is_once() -> None:
    network = used(0)
    before = {name: weights.clone() for name, weights in network.state_dict().items()}
    rounded = round_to_half(network)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    torch.testing.assert_close(dict(round_to_half(rounded).state_dict()), dict(rounded.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_what_float16_cannot_hold_is_refused(value: float) -> None:
    network = used(0)
    network.head.weight.data[0, 0, 0, 0] = value
    with pytest.raises(RunError, match="lower learning_rate"):
        round_to_half(network)


def test_it_is_stored_in_half_the_bytes_and_computes_exactly_the_same() -> None:
    program = RoadProgram(round_to_half(used(0)), views=Views(mirror=True)).eval()
    stored = HalfProgram(program)
    assert {weights.dtype for weights in stored.parameters() if weights.ndim == 4} == {torch.float16}
    image_BHWC = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(stored(image_BHWC), program(image_BHWC), rtol=0, atol=0)
    assert {weights.dtype for weights in program.parameters()} == {torch.float32}
