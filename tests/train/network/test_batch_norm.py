"""Normalisation over workers, beside torch's own over the whole batch in float64."""

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from roadseg_train.data.crops import worker_share
from roadseg_train.network.batch_norm import SyncBatchNorm2d, synchronise_batch_norms
from roadseg_train.network.collectives import rank_and_size
from tests.train.processes import in_group

NUM_CHANNELS = 3


def draw_batch() -> tuple[Tensor, Tensor]:
    """Values far from zero, and what each should do to the loss: (5, 3, 6, 7) both."""
    random = torch.Generator().manual_seed(0)
    shape = (5, NUM_CHANNELS, 6, 7)
    return torch.randn(shape, generator=random) * 3 + 20, torch.randn(shape, generator=random)


def set_up(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        norm.bias.copy_(torch.tensor([-1.0, 0.0, 3.0]))
    return norm.train()


def normalise(norm: nn.BatchNorm2d, x: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """The result, the gradients of input, weight and bias, and the running mean and variance."""
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(gradient)
    assert x.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var


def normalise_share(x: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    own = worker_share(len(x), *rank_and_size())
    part = slice(own.start, own.stop)
    return normalise(set_up(SyncBatchNorm2d(NUM_CHANNELS)), x[part], gradient[part])


def test_workers_normalise_by_the_whole_batch(tmp_path: Path) -> None:
    x, gradient = draw_batch()
    expected = normalise(set_up(nn.BatchNorm2d(NUM_CHANNELS).double()), x.double(), gradient.double())
    workers = in_group(2, normalise_share, tmp_path / "group", x, gradient)  # three pictures and two
    results, x_gradients, weight_gradients, bias_gradients, means, variances = zip(*workers, strict=True)
    # As exact as float32 lets what is computed from numbers about 20 be.
    assert_close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=2e-5, check_dtype=False)
    assert_close(torch.cat(results), expected[0])
    assert_close(torch.cat(x_gradients), expected[1])
    assert_close(sum(weight_gradients), expected[2])
    assert_close(sum(bias_gradients), expected[3])
    for mean, variance in zip(means, variances, strict=True):
        assert_close(mean, expected[4])
        assert_close(variance, expected[5])


def test_bfloat16_is_rounded_as_torch_does() -> None:
    x, gradient = (tensor.bfloat16().contiguous(memory_format=torch.channels_last) for tensor in draw_batch())
    expected = normalise(set_up(nn.BatchNorm2d(NUM_CHANNELS).double()), x.double(), gradient.double())
    synced = normalise(set_up(SyncBatchNorm2d(NUM_CHANNELS)), x, gradient)
    assert [tensor.dtype for tensor in synced] == [torch.bfloat16] * 2 + [torch.float32] * 4
    # bfloat16 keeps eight bits: half a unit of a result up to sixteen, and of each of two terms of a gradient up to 4.
    for its_tensor, tensor, atol in zip(synced, expected, [0.032, 0.016, 1e-3, 1e-3, 1e-5, 1e-4], strict=True):
        torch.testing.assert_close(its_tensor.double(), tensor, rtol=1e-5, atol=atol)


def test_synchronised_norms_keep_weights_and_names() -> None:
    network = nn.Sequential(nn.Conv2d(3, NUM_CHANNELS, 1), nn.BatchNorm2d(NUM_CHANNELS))
    weights = dict(network.named_parameters())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    synchronise_batch_norms(network)
    assert isinstance(network[1], SyncBatchNorm2d)
    assert all(parameter is weights[name] for name, parameter in network.named_parameters())
    assert {name: tensor.tolist() for name, tensor in network.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }


def test_while_evaluating_the_running_statistics_count() -> None:
    one = SyncBatchNorm2d(1).eval()
    one.load_state_dict({"running_mean": torch.tensor([4.0]), "running_var": torch.tensor([9.0])}, strict=False)
    assert one(torch.full((1, 1, 1, 1), 10.0)).item() == pytest.approx(2, abs=1e-5)  # (10 - 4) / 3
