"""The training loop: plain PyTorch, in one process or as one of several that torch.distributed has joined."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from roadseg_train import checkpoint
from roadseg_train.config import DEFAULT_THRESHOLD, TrainConfig
from roadseg_train.crops import Crops, batch_numbers
from roadseg_train.dataset import Frame
from roadseg_train.errors import RunError
from roadseg_train.loss import bce_loss, class_loss, iou_loss, lovasz_loss
from roadseg_train.metrics import score
from roadseg_train.model import Pupil, RoadProgram, normalise
from roadseg_train.predict import predict_frames
from roadseg_train.storage import Place

Save = Callable[[dict[str, Any], int, dict[str, float]], None]


class ProgressBar(Protocol):
    """What the loop asks of a progress bar; tqdm and Ray's distributed twin of it have it."""

    def set_description(self, desc: str) -> None:
        """Say what is going on."""

    def update(self, n: int) -> Any:
        """Move on by `n` steps."""


class Trainer:
    """Network, averaged network and optimiser: what a checkpoint holds."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = Pupil(config.widths).to(self.device).to(memory_format=torch.channels_last)
        self.average = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.network, config.weight_decay))
        self.dtype, self.dtype_reason = choose_dtype(config, self.device)
        self.step = 0
        _, num_workers = _worker()
        self.forward: nn.Module = DistributedDataParallel(self.network) if num_workers > 1 else self.network

    def train_step(self, image_BCHW: Tensor, truth_B2HW: Tensor) -> float:
        """One step on this worker's share of a batch (uint8 both); the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.network.train()
        pixels = normalise(image_BCHW.to(self.device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits_BHW, classes_BCHW = self.forward(pixels)
        loss = total_loss(logits_BHW, classes_BCHW, truth_B2HW.to(self.device), self.config)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """Everything to continue from."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state of the same configuration."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def train(
    config: TrainConfig,
    fit_frames: Sequence[Frame],
    heldout_frames: Sequence[Frame],
    *,
    run: Place,
    save: Save,
    make_bar: Callable[[int, int], ProgressBar],
) -> None:
    """Train to the end of the schedule.

    Args:
        config: the configuration.
        fit_frames: what to fit on.
        heldout_frames: what to score each checkpoint on; may be empty.
        run: whose newest whole checkpoint is continued from, where there is one.
        save: called on every worker at each checkpoint with the state, the step and the metrics.
        make_bar: makes the progress bar from the steps done and the steps in all; called on the first worker.

    Raises:
        RunError: the batch cannot be shared equally.
        DataError: a frame cannot be read.
    """
    rank, num_workers = _worker()
    if config.batch_size % num_workers:
        raise RunError(f"a batch of {config.batch_size} cannot be shared by {num_workers} workers; choose a divisor")
    trainer = Trainer(config)
    state = checkpoint.read_newest(run)
    if state is not None:
        trainer.restore(state)
    del state  # as large as the network, its average and the optimiser together
    crops = Crops(fit_frames, config)
    if rank == 0:
        print(f"training on {trainer.device} in {trainer.dtype_reason}", flush=True)
    bar = make_bar(trainer.step, config.num_steps) if rank == 0 else None
    losses: list[float] = []
    for image_BCHW, truth_B2HW in DataLoader(
        crops,
        batch_sampler=batch_numbers(trainer.step, config.num_steps, config.batch_size, rank, num_workers),
        num_workers=1,  # crops are made beside the step, and cost about a tenth of it
    ):
        losses.append(trainer.train_step(image_BCHW, truth_B2HW))
        if bar is not None:
            bar.update(1)
        if trainer.step % config.checkpoint_every_steps and trainer.step < config.num_steps:
            continue
        metrics = {"loss": sum(losses) / len(losses), "step": float(trainer.step)}
        if rank == 0 and heldout_frames:
            scored = score(
                [frame.counts for frame in predict_frames(averaged_program(trainer), heldout_frames, config)],
                DEFAULT_THRESHOLD,
            )
            metrics |= {f"heldout_{name}": value for name, value in scored.model_dump().items()}
        if bar is not None:
            bar.set_description(describe(metrics))
        save(trainer.state(), trainer.step, metrics)
        losses.clear()


def describe(metrics: dict[str, float]) -> str:
    """The metrics of a checkpoint in the few words that fit beside a progress bar."""
    held_out = f", held-out IoU {metrics['heldout_road_iou']:.4f}" if "heldout_road_iou" in metrics else ""
    return f"loss {metrics['loss']:.4f}{held_out}"


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    if step < config.num_warmup_steps:
        return config.learning_rate * (step + 1) / config.num_warmup_steps
    progress = (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def choose_dtype(config: TrainConfig, device: torch.device) -> tuple[torch.dtype, str]:
    """The precision of the forward pass, and why."""
    if config.precision != "auto":
        return getattr(torch, config.precision), f"{config.precision}: asked for"
    if device.type == "cuda":
        return torch.bfloat16, "bfloat16: the GPU has it"
    if torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16, "bfloat16: this CPU computes it, about twice as fast as float32"
    return torch.float32, "float32: this CPU has no bfloat16 instructions, where emulating it is slower"


def total_loss(logits_BHW: Tensor, classes_BCHW: Tensor, truth_B2HW: Tensor, config: TrainConfig) -> Tensor:
    """The weighted sum of the losses that the configuration asks for."""
    target_BHW, known_BHW = truth_B2HW.unbind(1)
    terms = (
        (config.iou_weight, iou_loss, logits_BHW, target_BHW),
        (config.bce_weight, bce_loss, logits_BHW, target_BHW),
        (config.lovasz_weight, lovasz_loss, logits_BHW, target_BHW),
        (config.class_weight, class_loss, classes_BCHW, known_BHW),
    )
    return sum((weight * loss(logits, truth) for weight, loss, logits, truth in terms if weight), torch.zeros(()))


def averaged_program(trainer: Trainer) -> RoadProgram:
    """The averaged network as it would be published, ready to predict."""
    network = trainer.average.module
    assert isinstance(network, Pupil)
    return RoadProgram(network.unet).eval()


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; norms and biases, which have one axis, do not."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _worker() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
