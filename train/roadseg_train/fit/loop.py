"""The training loop: plain PyTorch, in one process or as one of several that torch.distributed has joined."""

import contextlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from roadseg_train.config import DEFAULT_THRESHOLD, TrainConfig
from roadseg_train.data.crops import CPU, Crops, crop_numbers, load
from roadseg_train.data.dataset import Frame
from roadseg_train.errors import RunError
from roadseg_train.fit import checkpoint, curves
from roadseg_train.fit.curves import Curves
from roadseg_train.fit.progress import Clock, Progress, Summary, Totals
from roadseg_train.metrics import score
from roadseg_train.network.group import rank_and_size
from roadseg_train.network.loss import bce_loss, class_loss, iou_loss, lovasz_loss
from roadseg_train.network.model import AuxHeadUNet, RoadProgram, normalise
from roadseg_train.network.norm import pool_norms
from roadseg_train.network.predict import predict_frames
from roadseg_train.storage.path import StoragePath

CURVES_EVERY_STEPS = 10


class Wish(Enum):
    """What a host may ask of the loop after a step."""

    GO_ON = "go on"
    SAVE = "save, because this machine may be taken away, and go on until it is"
    STOP = "save and return"


class Host(Protocol):
    """Where the loop runs, and what it asks of there."""

    def report(self, metrics: dict[str, float]) -> None:
        """Hear of a checkpoint; called on every worker."""

    def wish(self) -> Wish:
        """What to do after this step; called on every worker after every step, and answered alike to all."""

    def show(self, progress: Progress) -> None:
        """Show how far the run is; called on the first worker after every step."""


@dataclass(frozen=True)
class Machine:
    """What a worker computes with. It does not decide the weights, so a run may be continued on another one.

    Attributes:
        device: of the network.
        num_loaders: processes that make crops ahead of the steps, on the CPU; with 0 the worker does, on its device.
        compiled: whether torch.compile translates the network, which takes a minute and then makes steps shorter.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    num_loaders: int = 1
    compiled: bool = False

    @property
    def crops_device(self) -> torch.device:
        """Where crops are made."""
        return CPU if self.num_loaders else self.device


ONE_CPU = Machine()


class Trainer:
    """Network, averaged network and optimiser: what a checkpoint holds."""

    def __init__(self, config: TrainConfig, machine: Machine = ONE_CPU) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = machine.device
        self.network = AuxHeadUNet(config.widths).to(self.device).to(memory_format=torch.channels_last)
        self.network.classes.requires_grad_(config.class_weight > 0)  # else workers would wait for its gradients
        self.average = AveragedModel(self.network, multi_avg_fn=self._average, use_buffers=True)
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.network, config.weight_decay))
        self.dtype, self.dtype_reason = choose_dtype(config, self.device)
        self.step = 0
        # Wrapped and compiled beside the network, whose own names stay as they are in checkpoints.
        self.forward: Callable[[Tensor], tuple[Tensor, Tensor]] = self.network
        self._shared: DistributedDataParallel | None = None
        if rank_and_size()[1] > 1:
            pool_norms(self.network)
            # Buffers need no broadcast: pooled norms compute the same ones on every worker.
            self._shared = DistributedDataParallel(
                self.network, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
            self.forward = self._shared
        if machine.compiled:
            self.forward = torch.compile(self.forward)

    def train_step(self, micro_batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """One step on this worker's share of a batch.

        Args:
            micro_batches: pairs of image_BCHW and truth_B2HW, both uint8; gradients are averaged over them.

        Returns:
            The loss and its parts, the mean over all workers and micro-batches.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        means: dict[str, Tensor] = {}
        for i, (image_BCHW, truth_B2HW) in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            with contextlib.nullcontext() if self._shared is None or last else self._shared.no_sync():
                losses = self._losses(image_BCHW, truth_B2HW)
                (losses["loss"] / len(micro_batches)).backward()
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach() / len(micro_batches)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))

    def _average(self, averaged: PARAM_LIST, latest: PARAM_LIST, num_averaged: Tensor | int) -> None:
        get_ema_multi_avg_fn(kept_of_average(self.step, self.config))(averaged, latest, num_averaged)

    def _losses(self, image_BCHW: Tensor, truth_B2HW: Tensor) -> dict[str, Tensor]:
        image_BCHW = image_BCHW.to(self.device, non_blocking=True)
        truth_B2HW = truth_B2HW.to(self.device, non_blocking=True)
        pixels = normalise(image_BCHW).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits_BHW, classes_BCHW = self.forward(pixels)
        return loss_of(logits_BHW, classes_BCHW, truth_B2HW, self.config)

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


def loss_of(logits_BHW: Tensor, classes_BCHW: Tensor, truth_B2HW: Tensor, config: TrainConfig) -> dict[str, Tensor]:
    """The loss to minimise, under "loss", and the parts that have a weight; each over the pictures of all workers."""
    target_BHW, known_BHW = truth_B2HW.unbind(1)
    weighted = (
        ("iou_loss", config.iou_weight, iou_loss, logits_BHW, target_BHW),
        ("bce_loss", config.bce_weight, bce_loss, logits_BHW, target_BHW),
        ("lovasz_loss", config.lovasz_weight, lovasz_loss, logits_BHW, target_BHW),
        ("class_loss", config.class_weight, class_loss, classes_BCHW, known_BHW),
    )
    losses = {"loss": torch.zeros((), device=logits_BHW.device)}
    for name, weight, loss, logits, truth in weighted:
        if weight:
            losses[name] = loss(logits, truth)
            losses["loss"] = losses["loss"] + weight * losses[name]
    return losses


def train(
    config: TrainConfig,
    fit_frames: Sequence[Frame],
    heldout_frames: Sequence[Frame],
    *,
    run: StoragePath,
    host: Host,
    machine: Machine,
) -> Summary:
    """Train to the end of the schedule, or until the host asks to stop.

    Args:
        config: the configuration.
        fit_frames: what to fit on.
        heldout_frames: what to score each checkpoint on; may be empty.
        run: whose newest whole checkpoint is continued from, where there is one, and where new ones go.
        host: where this runs.
        machine: what this worker computes with.

    Raises:
        RunError: the batch cannot be shared.
        StorageError: the run cannot be read or written.
        DataError: a frame cannot be read.
    """
    rank, num_workers = rank_and_size()
    check_shares(config, num_workers)
    trainer, totals = Trainer(config, machine), Totals()
    state = checkpoint.read_newest(run)
    if state is not None:
        totals = Totals.model_validate(state.pop("totals"))
        trainer.restore(state)
    del state  # as large as the network, its average and the optimiser together
    device = f"{trainer.device} in {trainer.dtype_reason}"
    if rank == 0:
        print(f"training on {device}", flush=True)
    batches = iter(
        load(
            Crops(fit_frames, config, machine.crops_device),
            crop_numbers(config, trainer.step, rank, num_workers),
            num_loaders=machine.num_loaders,
            pin_memory=machine.crops_device != machine.device,
        )
    )
    clock, wish = Clock(totals), Wish.GO_ON
    losses_since_checkpoint: list[float] = []
    mean_loss: float | None = None
    with contextlib.ExitStack() as stack:
        reports = stack.enter_context(_Reports(config, run, host, clock, trainer.step)) if rank == 0 else None
        while trainer.step < config.num_steps and wish is not Wish.STOP:
            with clock.wait():
                micro_batches = [next(batches) for _ in range(config.accumulate)]
            with clock.compute():
                losses = trainer.train_step(micro_batches)
            losses_since_checkpoint.append(losses["loss"])
            if reports is not None:
                reports.after_step(trainer.step, losses)
            wish = host.wish()
            due = trainer.step % config.checkpoint_every_steps == 0 or trainer.step == config.num_steps
            if not due and wish is Wish.GO_ON:
                continue
            with clock.checkpoint():
                mean_loss = sum(losses_since_checkpoint) / len(losses_since_checkpoint)
                losses_since_checkpoint.clear()
                metrics = {"loss": mean_loss, "step": float(trainer.step)}
                if reports is not None:
                    scores: dict[str, float] = {}
                    if due and heldout_frames:  # who has to leave has no time for it
                        scores = score_heldout(trainer, heldout_frames)
                        totals.note_scores(trainer.step, scores)
                        metrics |= {f"heldout_{name}": value for name, value in scores.items()}
                    reports.after_checkpoint(trainer.step, scores)
                    state = trainer.state() | {"totals": totals.model_dump()}
                    checkpoint.publish_into(run, state, step=trainer.step, metrics=metrics)
                host.report(metrics)
    num_images = trainer.step * config.batch_size
    return Summary(
        stopped=trainer.step < config.num_steps,
        step=trainer.step,
        num_steps=config.num_steps,
        num_images=num_images,
        duration_s=totals.steps_s + totals.checkpoint_s,
        images_per_s=num_images / totals.steps_s,
        data_wait_share=totals.wait_s / totals.steps_s,
        loss=mean_loss,
        best_step=totals.best_step,
        best_heldout=totals.best_heldout,
        last_heldout=totals.last_heldout,
        num_workers=num_workers,
        device=device,
    )


def check_shares(config: TrainConfig, num_workers: int) -> None:
    """Make sure that every worker has a picture in every micro-batch.

    Raises:
        RunError: it would not; the text says what to choose.
    """
    if config.batch_size % config.accumulate:
        raise RunError(
            f"a batch of {config.batch_size} cannot be cut into {config.accumulate} micro-batches; choose a divisor"
        )
    micro_batch_size = config.batch_size // config.accumulate
    if num_workers > micro_batch_size:
        raise RunError(
            f"{num_workers} workers cannot share {micro_batch_size} pictures (batch {config.batch_size}, "
            f"in {config.accumulate} parts); choose at most {micro_batch_size} workers"
        )


def score_heldout(trainer: Trainer, frames: Sequence[Frame]) -> dict[str, float]:
    """Scores of the averaged network on frames."""
    predicted = predict_frames(averaged_program(trainer), frames, trainer.config)
    scores: dict[str, float] = score([frame.counts for frame in predicted], DEFAULT_THRESHOLD).model_dump()
    return scores


class _Reports:
    """What the first worker tells while it trains: how far it is, and the learning curves."""

    def __init__(self, config: TrainConfig, run: StoragePath, host: Host, clock: Clock, step: int) -> None:
        self._config, self._run, self._host, self._clock = config, run, host, clock
        self._folder = tempfile.TemporaryDirectory()
        self._curves = Curves(Path(self._folder.name), step)
        self._since: list[dict[str, float]] = []
        self._mark = clock.totals.model_copy()

    def __enter__(self) -> "_Reports":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._curves.close()
        self._folder.cleanup()

    def after_step(self, step: int, losses: dict[str, float]) -> None:
        """Show the step; at intervals add what happened since the last point to the curves."""
        config, clock = self._config, self._clock
        self._host.show(
            Progress(
                step=step,
                num_steps=config.num_steps,
                loss=losses["loss"],
                heldout_iou=self._clock.totals.last_heldout.get("road_iou"),
                images_per_s=config.batch_size / clock.step_s,
                wait_share=clock.wait_share,
                left_s=clock.step_s * (config.num_steps - step),
            )
        )
        self._since.append(losses)
        if step % CURVES_EVERY_STEPS and step < config.num_steps:
            return
        steps_s = self._clock.totals.steps_s - self._mark.steps_s
        means = {name: sum(each[name] for each in self._since) / len(self._since) for name in losses}
        means["learning_rate"] = learning_rate(step - 1, config)
        means["images_per_s"] = config.batch_size * len(self._since) / steps_s
        means["data_wait_share"] = (self._clock.totals.wait_s - self._mark.wait_s) / steps_s
        self._curves.add(step, {f"train/{name}": value for name, value in means.items()})
        self._since.clear()
        self._mark = self._clock.totals.model_copy()

    def after_checkpoint(self, step: int, scores: dict[str, float]) -> None:
        """Add the held-out scores to the curves, and bring those into the run folder."""
        self._curves.add(step, {f"heldout/{name}": value for name, value in scores.items()})
        self._curves.flush()
        self._run.upload(self._curves.folder, curves.FOLDER)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    if step < config.num_warmup_steps:
        return config.learning_rate * (step + 1) / config.num_warmup_steps
    progress = (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def kept_of_average(step: int, config: TrainConfig) -> float:
    """The share of the averaged weights that a step keeps: less while there are few, so that none of the first stay.

    Source: `num_updates` of TensorFlow's `ExponentialMovingAverage`.
    """
    return min(config.ema_decay, (1 + step) / (10 + step))


def choose_dtype(config: TrainConfig, device: torch.device) -> tuple[torch.dtype, str]:
    """The precision of the forward pass, and why."""
    if config.precision != "auto":
        return getattr(torch, config.precision), f"{config.precision}: asked for"
    if device.type == "cuda":
        return torch.bfloat16, "bfloat16: the GPU has it"
    if torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16, "bfloat16: this CPU computes it, about twice as fast as float32"
    return torch.float32, "float32: this CPU has no bfloat16 instructions, where emulating it is slower"


def averaged_program(trainer: Trainer) -> RoadProgram:
    """The averaged network as it would be published, ready to predict."""
    network = trainer.average.module
    assert isinstance(network, AuxHeadUNet)
    return RoadProgram(network.unet).eval()


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay; norms and biases, which have one axis, do not."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
