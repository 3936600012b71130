import math
from collections.abc import Callable

import pytest
import torch

from roadseg_train.data.dataset import NOT_ROAD, ROAD, UNKNOWN_CLASS, VOID
from roadseg_train.network.loss import bce_loss, class_loss, iou_loss

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SURE = 40.0  # a logit whose probability is 1 in float32


def target(*values: int) -> torch.Tensor:
    return torch.tensor([[list(values)]], dtype=torch.uint8)


def logits(*values: float) -> torch.Tensor:
    return torch.tensor([[list(values)]])


def test_iou_loss_by_hand() -> None:
    # found one of two road pixels and one false: intersection 1, union 3; one pixel is added to both
    found = iou_loss(logits(SURE, -SURE, SURE, -SURE), target(ROAD, ROAD, NOT_ROAD, NOT_ROAD))
    assert found.item() == pytest.approx(1 - (1 + 1) / (3 + 1))


def test_iou_loss_of_even_probabilities_by_hand() -> None:
    # p = 1/2 everywhere on one road and one other pixel: intersection 1/2, union 1/2 + 1/2 + 1 - 1/2 = 3/2
    assert iou_loss(logits(0, 0), target(ROAD, NOT_ROAD)).item() == pytest.approx(1 - 1.5 / 2.5)


def test_iou_loss_is_pooled_over_the_batch() -> None:
    # one picture all found (8 pixels), one all missed (2 pixels): pooled 8 / 10, not the mean of 1 and 0
    truth = torch.full((2, 1, 8), ROAD, dtype=torch.uint8)
    truth[1, :, 2:] = NOT_ROAD
    claimed = torch.full((2, 1, 8), SURE)
    claimed[1] = -SURE
    assert iou_loss(claimed, truth).item() == pytest.approx(1 - (8 + 1) / (10 + 1))


def test_bce_loss_against_the_plain_formula() -> None:
    values, truth = logits(0.3, -1.2, 2.0), target(ROAD, NOT_ROAD, ROAD)
    expected = -(
        math.log(1 / (1 + math.exp(-0.3))) + math.log(1 - 1 / (1 + math.exp(1.2))) + math.log(1 / (1 + math.exp(-2.0)))
    )
    assert bce_loss(values, truth).item() == pytest.approx(expected / 3, rel=1e-5)


@pytest.mark.parametrize("loss", [iou_loss, bce_loss])
def test_void_counts_nowhere(loss: Loss) -> None:
    with_void = loss(logits(0.5, -2.0, 9.0), target(ROAD, NOT_ROAD, VOID))
    without = loss(logits(0.5, -2.0), target(ROAD, NOT_ROAD))
    torch.testing.assert_close(with_void, without)


@pytest.mark.parametrize("loss", [iou_loss, bce_loss])
def test_nothing_labelled_teaches_nothing(loss: Loss) -> None:
    values = logits(1.0, -1.0).requires_grad_()
    found = loss(values, target(VOID, VOID))
    found.backward()
    assert found.item() == 0
    assert values.grad is not None
    assert float(values.grad.abs().sum()) == 0


def test_class_loss_by_hand() -> None:
    # 2x2 pixels share one place of the logits; the label is that of the upper left one. The second place is unknown.
    classes = torch.tensor([[[2, 9, UNKNOWN_CLASS, 1], [9, 9, 1, 1]]], dtype=torch.uint8)
    values = torch.tensor([[[[0.5, 7.0]], [[1.5, 7.0]], [[-1.0, 7.0]]]])
    expected = -math.log(math.exp(1.5) / (math.exp(0.5) + math.exp(1.5) + math.exp(-1.0)))
    assert class_loss(values, classes).item() == pytest.approx(expected, rel=1e-5)


def test_classes_that_nobody_knows_teach_nothing() -> None:
    values = torch.randn(1, 3, 2, 2, requires_grad=True)
    found = class_loss(values, torch.zeros(1, 4, 4, dtype=torch.uint8))
    found.backward()
    assert found.item() == 0
    assert values.grad is not None
    assert float(values.grad.abs().sum()) == 0
