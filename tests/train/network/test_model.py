import pytest
import torch

from roadseg_train.network.model import PIXEL_MEAN, PIXEL_STD, RoadProgram, UNet, normalise
from roadseg_train.network.views import Views


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 50), (1, 1), (7, 200), (368, 480)])
def test_any_height_and_width(height: int, width: int) -> None:
    with torch.inference_mode():
        assert UNet((4, 8, 12)).eval()(torch.zeros(2, 3, height, width)).shape == (2, height, width)


def test_features_halve_rounding_up() -> None:
    sizes = [tuple(f.shape[1:]) for f in UNet((4, 8, 12)).encoder(torch.zeros(1, 3, 33, 50))]
    assert sizes == [(4, 17, 25), (8, 9, 13), (12, 5, 7)]


def test_every_weight_learns() -> None:
    network = UNet((4, 8))
    network(torch.randn(2, 3, 20, 24)).square().sum().backward()
    for name, weights in network.named_parameters():
        assert weights.grad is not None, name
        assert float(weights.grad.abs().sum()) > 0, name


def test_skip_connections_carry_detail() -> None:
    # With the path through the smallest features cut, the answer still depends on the picture.
    torch.manual_seed(0)
    network = UNet((4, 8)).eval()
    features = network.encoder(torch.randn(1, 3, 16, 16))
    blind = [features[0], torch.zeros_like(features[1])]
    dark = [torch.zeros_like(features[0]), torch.zeros_like(features[1])]
    assert not torch.allclose(network.decoder(blind), network.decoder(dark))


def test_normalise_by_hand() -> None:
    pixels = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-PIXEL_MEAN / PIXEL_STD, (255 - PIXEL_MEAN) / PIXEL_STD]]]])
    torch.testing.assert_close(normalise(pixels), expected)


def test_the_program_takes_bytes_and_gives_probabilities() -> None:
    torch.manual_seed(0)
    network = UNet((4, 8)).eval()
    image_BHWC = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        prob_BHW = RoadProgram(network)(image_BHWC)
        logits_BHW = network((image_BHWC.permute(0, 3, 1, 2).float() - PIXEL_MEAN) / PIXEL_STD)
    assert prob_BHW.dtype == torch.float32
    torch.testing.assert_close(prob_BHW, 1 / (1 + torch.exp(-logits_BHW)))


def test_the_mean_of_an_image_and_its_mirror_image() -> None:
    torch.manual_seed(0)
    network = UNet((4, 8)).eval()
    image_BHWC = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        plain_BHW = RoadProgram(network)(image_BHWC)
        mirrored_BHW = RoadProgram(network)(image_BHWC.flip(2)).flip(2)
        found_BHW = RoadProgram(network, views=Views(mirror=True))(image_BHWC)
    torch.testing.assert_close(found_BHW, (plain_BHW + mirrored_BHW) / 2)


def test_the_mean_of_scales() -> None:
    torch.manual_seed(0)
    network = UNet((4, 8)).eval()
    image_BHWC = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        # At half the scale each pixel is the mean of four.
        half_BCHW = normalise(image_BHWC.permute(0, 3, 1, 2)).unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
        small_B1HW = torch.sigmoid(network(half_BCHW))[:, None]
        # Back again: three quarters of the nearest and a quarter of the next, the edge repeated.
        padded = torch.nn.functional.pad(small_B1HW, (1, 1, 1, 1), mode="replicate")
        rows = torch.stack((3 * padded[:, :, :-1] + padded[:, :, 1:], padded[:, :, :-1] + 3 * padded[:, :, 1:]), 3) / 4
        rows = rows.flatten(2, 3)[:, :, 1:-1]
        both = torch.stack((3 * rows[..., :-1] + rows[..., 1:], rows[..., :-1] + 3 * rows[..., 1:]), 4) / 4
        expected_BHW = both.flatten(3, 4)[:, 0, :, 1:-1]
        torch.testing.assert_close(RoadProgram(network, views=Views(scales=(0.5,)))(image_BHWC), expected_BHW)
        mean_BHW = (expected_BHW + RoadProgram(network)(image_BHWC)) / 2
        torch.testing.assert_close(RoadProgram(network, views=Views(scales=(0.5, 1)))(image_BHWC), mean_BHW)


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    program = RoadProgram(UNet((4, 8))).eval()
    image_BHWC = torch.randint(0, 256, (3, 16, 24, 3), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(program(image_BHWC)[1:2], program(image_BHWC[1:2]))
