"""Several processes over Gloo, beside one process that does the same work alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from roadseg_train.config import TrainConfig
from roadseg_train.data.crops import Crops, crop_numbers, load, worker_share
from roadseg_train.data.dataset import find_frames
from roadseg_train.data.split import select
from roadseg_train.fit.loop import Trainer
from roadseg_train.network.collectives import rank_and_size, sum_over_workers
from roadseg_train.network.loss import bce_loss, class_loss, iou_loss
from tests.train.processes import in_group


def train_some_steps(config: TrainConfig, data: Path) -> tuple[list[float], dict[str, Tensor], Any]:
    """Losses of the steps, the averaged weights, and the gradients of the first step."""
    trainer = Trainer(config)
    rank, size = rank_and_size()
    crops = Crops(select(find_frames(data), "fit"), config)
    batches = iter(load(crops, crop_numbers(config, 0, rank, size), num_loaders=0, pin_memory=False))
    losses, gradients = [], {}
    for step in range(config.num_steps):
        losses.append(trainer.train_step([next(batches) for _ in range(config.accumulate)])["loss"])
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}
    return losses, trainer.average.state_dict(), gradients


@pytest.mark.parametrize(("size", "accumulate", "class_weight"), [(2, 2, 0.4), (3, 1, 0.0)])
def test_workers_do_what_one_process_does(
    tmp_path: Path, camvid: Path, config: TrainConfig, *, size: int, accumulate: int, class_weight: float
) -> None:
    # 8 pictures on 3 workers are shares of 3, 3 and 2: sums and counts do not mind.
    every_loss = {"iou_weight": 0.5, "bce_weight": 0.5, "class_weight": class_weight}
    # A tenth of the other tests' learning rate: theirs makes 1e-3 of a difference of 1e-7 within these steps.
    schedule = {"batch_size": 8, "accumulate": accumulate, "learning_rate": 1e-3}
    config = config.model_copy(update={**schedule, **every_loss})
    torch.set_num_threads(1)
    losses, weights, gradients = train_some_steps(config, camvid)
    for worker in in_group(size, train_some_steps, tmp_path / "group", config, camvid):
        its_losses, its_weights, its_gradients = worker
        # The only difference is the order in which float32 numbers are added: about 1e-7 of a sum, and some more of it
        # where a gradient is the small difference of large ones.
        assert its_losses == pytest.approx(losses, rel=1e-5)
        assert its_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(its_gradients[name], gradient, rtol=1e-4, atol=1e-6)
        # Six steps of Adam with a learning rate of 1e-3 later: a tenth of a step. Adam divides each gradient by its own
        # size, so that what was added in another order counts most where a gradient is next to nothing.
        torch.testing.assert_close(its_weights, weights, rtol=0, atol=1e-4)


def loss_gradients(logits_BHW: Tensor, target_BHW: Tensor) -> tuple[list[float], Tensor]:
    rank, size = rank_and_size()
    part = worker_share(len(logits_BHW), rank, size)
    logits = logits_BHW[part.start : part.stop].requires_grad_()
    target = target_BHW[part.start : part.stop]
    losses = [iou_loss(logits, target), bce_loss(logits, target)]
    # The target stands in for the classes of three at half the resolution, whose logits are those of the road, shifted.
    halves_BCHW = torch.stack([logits[:, ::2, ::2].roll(shift, -1) for shift in range(3)], dim=1)
    losses.append(class_loss(halves_BCHW, target))
    weights = torch.arange(1.0, len(losses) + 1)
    (weights * torch.stack(losses)).sum().backward()
    assert logits.grad is not None
    return [float(loss.detach()) for loss in losses], logits.grad / size  # as DistributedDataParallel divides


def test_losses_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(5, 6, 7), torch.randint(0, 3, (5, 6, 7), dtype=torch.uint8)
    target[0] = 0  # a worker without a labelled pixel must not weigh as one with many
    losses, gradient = loss_gradients(logits.clone(), target)
    workers = in_group(3, loss_gradients, tmp_path / "group", logits, target)
    assert [its_losses for its_losses, _ in workers] == [pytest.approx(losses)] * 3
    torch.testing.assert_close(torch.cat([its_gradient for _, its_gradient in workers]), gradient)


def test_one_process_is_its_own_sum() -> None:
    tensor = torch.ones(3)
    assert sum_over_workers(tensor) is tensor
    assert rank_and_size() == (0, 1)
