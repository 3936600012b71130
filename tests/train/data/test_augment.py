import pytest
import torch

from roadseg_train.config import TrainConfig
from roadseg_train.data.augment import augment
from roadseg_train.data.dataset import NOT_ROAD, ROAD, VOID


def plain(config: TrainConfig) -> TrainConfig:
    """The configuration with everything off that recolours."""
    return config.model_copy(
        update={
            "colour_jitter": 0.0,
            "gamma_range": (1.0, 1.0),
            "hue_jitter": 0.0,
            "degrade_probability": 0.0,
            "cover_probability": 0.0,
        }
    )


def half_road() -> tuple[torch.Tensor, torch.Tensor]:
    """Left half road and white, right half not and mid grey; nothing is black or void."""
    target_1HW = torch.full((1, 48, 64), NOT_ROAD, dtype=torch.uint8)
    target_1HW[..., :32] = ROAD
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


def test_the_target_moves_with_the_picture(config: TrainConfig) -> None:
    agreed = total = 0
    for seed in range(30):
        image_CHW, (target_HW,) = augment(*half_road(), plain(config), seed)
        shown = torch.where(image_CHW[0] > 191, ROAD, torch.where(image_CHW[0] > 64, NOT_ROAD, VOID))
        agreed += int((shown == target_HW).sum())
        total += target_HW.numel()
    # Where edges are blended in the picture they are not in the target: at most one pixel along five sides of 32 to 48.
    # A target that had not moved with its picture would agree in half of the pixels.
    assert agreed / total > 1 - 5 * 48 / (32 * 48) / 2


def test_what_is_filled_in_is_void(config: TrainConfig) -> None:
    shrunk = plain(config).model_copy(update={"scale_range": (0.3, 0.3), "rotation_deg": 0.0, "stretch": 1.0})
    image_CHW, (target_HW,) = augment(*half_road(), shrunk, seed=1)
    # 64x48 at scale 0.3 is 19x14 pixels in a crop of 48x32
    assert abs(int((target_HW != VOID).sum()) - 19 * 14) < 40
    assert int(image_CHW[:, target_HW == VOID].max()) < 200


def test_a_cover_hides_the_picture_and_leaves_the_target(config: TrainConfig) -> None:
    still = plain(config).model_copy(update={"scale_range": (1.0, 1.0), "rotation_deg": 0.0, "stretch": 1.0})
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
