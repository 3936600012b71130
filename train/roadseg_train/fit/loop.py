"""The training loop: plain PyTorch, in one process or as one of several joined by torch.distributed."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from roadseg_train.config import DEFAULT_THRESHOLD, TrainConfig
from roadseg_train.data.crops import CPU, Crops, crop_numbers, load
from roadseg_train.errors import RunError
from roadseg_train.fit import checkpoint
from roadseg_train.fit.curves import Curves
from roadseg_train.fit.options import FitOptions
from roadseg_train.fit.progress import Clock, Progress, Summary, Totals
from roadseg_train.fit.run import RunRecord
from roadseg_train.metrics import score
from roadseg_train.network.batch_norm import synchronise_batch_norms
from roadseg_train.network.collectives import rank_and_size
from roadseg_train.network.loss import bce_loss, class_loss, iou_loss
from roadseg_train.network.model import AuxHeadUNet, RoadProgram, normalise
from roadseg_train.network.predict import predict_frames
from roadseg_train.storage.path import StoragePath


class Action(Enum):
    """What a host may ask of the loop after a step."""

    CONTINUE = "continue"
    SAVE = "save, because this machine may be taken away, and continue"
    STOP = "save and return"


class Host(Protocol):
    """The process or the Ray worker that runs the loop."""

    def report(self, metrics: dict[str, float]) -> None:
        """Receive the metrics of a checkpoint; called on every worker."""

    def next_action(self) -> Action:
        """What to do after this step; called on every worker after every step, with the same answer for all."""

    def show(self, progress: Progress) -> None:
        """Show progress; called on the first worker after every step."""


class Trainer:
    """The network, its average and the optimiser, which a checkpoint holds."""

    def __init__(self, config: TrainConfig, device: torch.device = CPU, *, compiled: bool = False) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.network = AuxHeadUNet(config.widths).to(device).to(memory_format=torch.channels_last)
        self.network.classes.requires_grad_(config.class_weight > 0)  # else workers would wait for its gradients
        self.average = AveragedModel(self.network, multi_avg_fn=self._average, use_buffers=True)
        # Norms and biases, which have one axis, do not decay.
        groups = [
            {"params": [p for p in self.network.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in self.network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups)
        self.dtype, self.dtype_reason = choose_dtype(config, device)
        self.step = 0
        # Wrapped and compiled separately from the network, so that names in checkpoints do not change.
        self.forward: Callable[[Tensor], tuple[Tensor, Tensor]] = self.network
        self._distributed: DistributedDataParallel | None = None
        if rank_and_size()[1] > 1:
            synchronise_batch_norms(self.network)
            # Buffers need no broadcast: synchronised norms compute the same ones on every worker.
            self.forward = self._distributed = DistributedDataParallel(
                self.network, forward_sync_buffers=False, gradient_as_bucket_view=True
            )
        if compiled:
            self.forward = torch.compile(self.forward)

    def train_step(self, micro_batches: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Take one step on this worker's share of a batch: pairs of image_BCHW and labels_B2HW, both uint8.

        Returns the loss and its parts, averaged over all workers and micro-batches, as gradients are.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        means: dict[str, Tensor] = {}
        for i, (image_BCHW, labels_B2HW) in enumerate(micro_batches):
            last = i == len(micro_batches) - 1
            with contextlib.nullcontext() if self._distributed is None or last else self._distributed.no_sync():
                losses = self._losses(image_BCHW, labels_B2HW)
                (losses["loss"] / len(micro_batches)).backward()
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach() / len(micro_batches)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))

    def _average(self, averaged: PARAM_LIST, latest: PARAM_LIST, num_averaged: Tensor | int) -> None:
        get_ema_multi_avg_fn(average_decay(self.step, self.config))(averaged, latest, num_averaged)

    def _losses(self, image_BCHW: Tensor, labels_B2HW: Tensor) -> dict[str, Tensor]:
        """The loss to minimise, under "loss", and its parts with a weight, each over the images of all workers."""
        image_BCHW = image_BCHW.to(self.device, non_blocking=True)
        target_BHW, classes_BHW = labels_B2HW.to(self.device, non_blocking=True).unbind(1)
        pixels_BCHW = normalise(image_BCHW).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits_BHW, class_logits_BCHW = self.forward(pixels_BCHW)
        losses = {"loss": torch.zeros((), device=self.device)}
        for name, weight, loss, logits, truth in (
            ("iou_loss", self.config.iou_weight, iou_loss, logits_BHW, target_BHW),
            ("bce_loss", self.config.bce_weight, bce_loss, logits_BHW, target_BHW),
            ("class_loss", self.config.class_weight, class_loss, class_logits_BCHW, classes_BHW),
        ):
            if weight:
                losses[name] = loss(logits, truth)
                losses["loss"] = losses["loss"] + weight * losses[name]
        return losses

    def averaged_program(self) -> RoadProgram:
        """The averaged network as it would be published, apart from rounding."""
        network = checkpoint.averaged_network(self.average.state_dict(), self.config)
        return RoadProgram(network).eval().to(self.device)

    def state(self) -> dict[str, Any]:
        """Everything needed to resume."""
        return {"step": self.step} | {name: part.state_dict() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state of the same configuration."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"network": self.network, "average": self.average, "optimizer": self.optimizer}


def train(
    run: StoragePath, record: RunRecord, options: FitOptions, *, host: Host, device: torch.device = CPU
) -> Summary:
    """Train from the newest complete checkpoint of a run to the end of the schedule, or until the host asks to stop.

    Raises RunError if a worker would have no images, StorageError for the run, and DataError for a frame.
    """
    config, (rank, num_workers) = record.config, rank_and_size()
    check_shares(config, num_workers)
    trainer = Trainer(config, device, compiled=options.compiled)
    totals = _resume(trainer, run)
    precision = f"{device} in {trainer.dtype_reason}"
    if rank == 0:
        print(f"training on {precision}", flush=True)
    crops = Crops(record.frames(record.split), config, CPU if options.num_loaders else device)
    numbers = crop_numbers(config, trainer.step, rank, num_workers)
    batches = iter(load(crops, numbers, num_loaders=options.num_loaders, pin_memory=crops.device != device))
    heldout_frames = record.heldout_frames() if rank == 0 else []
    clock, action = Clock(totals), Action.CONTINUE
    recent_losses: list[float] = []
    mean_loss: float | None = None
    curves = Curves(run, trainer.step, config.batch_size, totals) if rank == 0 else None
    with contextlib.closing(curves) if curves else contextlib.nullcontext():
        while trainer.step < config.num_steps and action is not Action.STOP:
            started = time.perf_counter()
            micro_batches = [next(batches) for _ in range(config.accumulate)]
            ready = time.perf_counter()
            losses = trainer.train_step(micro_batches)
            done = time.perf_counter()
            clock.add_step(ready - started, done - ready)
            recent_losses.append(losses["loss"])
            last = trainer.step == config.num_steps
            if curves:
                host.show(_progress(trainer, clock, losses["loss"], totals.last_heldout.get("road_iou")))
                rate = learning_rate(trainer.step - 1, config)
                curves.after_step(trainer.step, losses, learning_rate=rate, last=last)
            action = host.next_action()
            due = last or trainer.step % options.checkpoint_every_steps == 0
            if not due and action is Action.CONTINUE:
                continue
            mean_loss = sum(recent_losses) / len(recent_losses)
            recent_losses.clear()
            metrics = {"loss": mean_loss, "step": float(trainer.step)}
            if curves:
                scores: dict[str, float] = {}
                if due and heldout_frames:  # a machine that may be taken away has no time for it
                    counts = list(predict_frames(trainer.averaged_program(), heldout_frames, config))
                    scores = score(counts, DEFAULT_THRESHOLD).model_dump()
                    totals.note_scores(trainer.step, scores)
                    metrics |= {f"heldout_{name}": value for name, value in scores.items()}
                curves.after_checkpoint(trainer.step, scores)
                state = trainer.state() | {"totals": totals.model_dump()}
                checkpoint.save(run, state, step=trainer.step, metrics=metrics)
            host.report(metrics)
            totals.checkpoint_s += time.perf_counter() - done
    return _summary(trainer, totals, loss=mean_loss, num_workers=num_workers, device=precision)


def check_shares(config: TrainConfig, num_workers: int) -> None:
    """Raise RunError unless every worker has an image in every micro-batch."""
    batch, parts = config.batch_size, config.accumulate
    if batch % parts:
        raise RunError(f"a batch of {batch} cannot be split into {parts} micro-batches; choose a divisor")
    most = batch // parts
    if num_workers > most:
        shared = f"{most} images (batch {batch}, in {parts} parts)"
        raise RunError(f"{num_workers} workers cannot share {shared}; choose at most {most} workers")


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    if step < config.num_warmup_steps:
        return config.learning_rate * (step + 1) / config.num_warmup_steps
    progress = (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def average_decay(step: int, config: TrainConfig) -> float:
    """The share of the averaged weights kept in a step: smaller at first, to forget the initial weights.

    Source: `num_updates` of TensorFlow's `ExponentialMovingAverage`.
    """
    return min(config.ema_decay, (1 + step) / (10 + step))


def choose_dtype(config: TrainConfig, device: torch.device) -> tuple[torch.dtype, str]:
    """The precision of the forward pass, and why."""
    if config.precision != "auto":
        return getattr(torch, config.precision), f"{config.precision}, as requested"
    if device.type == "cuda":
        return torch.bfloat16, "bfloat16, which the GPU supports"
    if torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16, "bfloat16, which this CPU computes about twice as fast as float32"
    return torch.float32, "float32, because this CPU would have to emulate bfloat16"


def _resume(trainer: Trainer, run: StoragePath) -> Totals:
    """Restore the newest checkpoint, if there is one, and return the totals of the run."""
    state = checkpoint.read_newest(run)
    if state is None:
        return Totals()
    trainer.restore(state)
    return Totals.model_validate(state["totals"])


def _progress(trainer: Trainer, clock: Clock, loss: float, heldout_iou: float | None) -> Progress:
    return Progress(
        step=trainer.step,
        num_steps=trainer.config.num_steps,
        loss=loss,
        heldout_iou=heldout_iou,
        images_per_s=trainer.config.batch_size / clock.step_s,
        wait_share=clock.wait_share,
        left_s=clock.step_s * (trainer.config.num_steps - trainer.step),
    )


def _summary(trainer: Trainer, totals: Totals, *, loss: float | None, num_workers: int, device: str) -> Summary:
    num_images = trainer.step * trainer.config.batch_size
    return Summary(
        stopped=trainer.step < trainer.config.num_steps,
        step=trainer.step,
        num_steps=trainer.config.num_steps,
        num_images=num_images,
        duration_s=totals.steps_s + totals.checkpoint_s,
        images_per_s=num_images / totals.steps_s,
        data_wait_share=totals.wait_s / totals.steps_s,
        loss=loss,
        best_step=totals.best_step,
        best_heldout=totals.best_heldout,
        last_heldout=totals.last_heldout,
        num_workers=num_workers,
        device=device,
    )
