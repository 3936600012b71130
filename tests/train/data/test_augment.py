import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from roadseg_train.config import TrainConfig
from roadseg_train.data.augment import augment
from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID

HEIGHT, WIDTH = 48, 64


def plain(config: TrainConfig, **fields: object) -> TrainConfig:
    """The configuration with everything off that changes colours."""
    off = {
        "colour_jitter": 0.0,
        "gamma_range": (1.0, 1.0),
        "hue_jitter": 0.0,
        "degrade_probability": 0.0,
        "cover_probability": 0.0,
    }
    return config.model_copy(update=off | fields)


def half_road() -> tuple[Tensor, Tensor]:
    """The left half is road and white, the right half is neither and mid grey; nothing is black or void."""
    target_1HW = torch.full((1, HEIGHT, WIDTH), NOT_ROAD, dtype=torch.uint8)
    target_1HW[..., : WIDTH // 2] = ROAD
    image_CHW = torch.where(target_1HW == ROAD, 255, 128).to(torch.uint8).expand(3, -1, -1).contiguous()
    return image_CHW, target_1HW


def test_shape_and_type(config: TrainConfig) -> None:
    for seed in range(40):  # enough to meet each kind of fault
        image_CHW, target_1HW = augment(*half_road(), config, seed)
        assert (image_CHW.shape, image_CHW.dtype) == ((3, 32, 48), torch.uint8)
        assert (target_1HW.shape, target_1HW.dtype) == ((1, 32, 48), torch.uint8)


def test_a_crop_is_a_function_of_its_seed(config: TrainConfig) -> None:
    first, again, other = (augment(*half_road(), config, seed) for seed in (7, 7, 8))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first[0], other[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_makes_the_same_crops_but_for_rounding(config: TrainConfig) -> None:
    for seed in range(40):
        image_CHW, target_1HW = augment(*half_road(), config, seed)
        whole_CHW, truth_1HW = (pixels.cuda() for pixels in half_road())
        found_CHW, found_1HW = augment(whole_CHW, truth_1HW, config, seed)
        assert (found_CHW.cpu().float() - image_CHW.float()).abs().mean() < 2
        assert (found_1HW.cpu() == target_1HW).float().mean() > 0.98


@pytest.mark.parametrize("rotation_deg", [0.0, 5.0])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_the_labels_move_with_the_image(config: TrainConfig, scale: float, rotation_deg: float) -> None:
    """Both hold the coordinates of each pixel of the frame: the image 4 x and 4 y, the labels x + 1 and y + 1.

    Bilinear interpolation of a ramp is the exact coordinate of a pixel's centre. The nearest label is at most half a
    pixel of the frame away, in either direction.
    """
    y_HW, x_HW = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    image_CHW = torch.stack((4 * x_HW, 4 * y_HW, torch.zeros_like(x_HW))).to(torch.uint8)
    labels_2HW = torch.stack((x_HW + 1, y_HW + 1)).to(torch.uint8)
    still = plain(config, scale_range=(scale, scale), rotation_deg=rotation_deg)
    offsets = []
    for seed in range(20):
        found_CHW, found_2HW = (pixels.float() for pixels in augment(image_CHW, labels_2HW, still, seed))
        offset_2HW = found_2HW - 1 - found_CHW[:2] / 4
        # Edges of the frame and of the crop are blended with black.
        near_void_HW = F.max_pool2d((found_2HW[:1] == VOID).float(), 5, stride=1, padding=2)[0] > 0
        x, y = found_2HW - 1
        inside_HW = (x >= 4) & (x < WIDTH - 4) & (y >= 4) & (y < HEIGHT - 4) & ~near_void_HW
        offsets.append(offset_2HW[:, 2:-2, 2:-2][:, inside_HW[2:-2, 2:-2]])
    offset = torch.cat(offsets, dim=1)
    # An eighth for rounding the image; a rotation takes the nearest pixel of the crop, up to 0.7 pixels of it away.
    assert offset.abs().max() <= 0.5 + 0.125 + (0.75 / scale if rotation_deg else 0)
    # Measured: at most 0.02. Labels taken from the upper left corner of each pixel would be off by 0.3 to 0.7.
    assert offset.mean(1).abs().max() < 0.05


def test_what_is_filled_in_is_black_and_void(config: TrainConfig) -> None:
    shrunk = plain(config, scale_range=(0.3, 0.3), rotation_deg=0.0, stretch=1.0)
    for seed in range(10):
        image_CHW, (target_HW,) = augment(*half_road(), shrunk, seed)
        rows, columns = (torch.nonzero((target_HW != VOID).any(axis)).flatten() for axis in (1, 0))
        # 48 x 64 pixels at scale 0.3 are 14.4 x 19.2, which cover 14 or 15 x 19 or 20 centres.
        assert (len(rows), len(columns)) in {(14, 19), (14, 20), (15, 19), (15, 20)}
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        assert bool((target_HW[top:bottom, left:right] != VOID).all())
        beyond = torch.ones_like(target_HW, dtype=torch.bool)
        beyond[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = False  # the edge itself is blended
        assert int(image_CHW[:, beyond].max()) == 0
        assert int(image_CHW[:, top + 1 : bottom - 1, left + 1 : right - 1].min()) >= 128


def test_a_cover_hides_the_image_and_leaves_the_target(config: TrainConfig) -> None:
    still = plain(config, scale_range=(1.0, 1.0), rotation_deg=0.0, stretch=1.0)
    for seed in range(10):
        bare_CHW, target_1HW = augment(*half_road(), still, seed)
        covered_CHW, same_1HW = augment(*half_road(), still.model_copy(update={"cover_probability": 1.0}), seed)
        torch.testing.assert_close(target_1HW, same_1HW, rtol=0, atol=0)
        hidden = (bare_CHW != covered_CHW).any(0)
        rows, columns = hidden.nonzero().unbind(1)
        assert covered_CHW[:, hidden].unique().numel() == 1
        # between a tenth and two fifths of each side of 32x48, rounded
        assert rows.max() - rows.min() < 13
        assert columns.max() - columns.min() < 20
