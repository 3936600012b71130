from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from roadseg_train.config import TrainConfig
from roadseg_train.errors import RunError
from roadseg_train.fit import checkpoint
from roadseg_train.fit.loop import (
    Action,
    Trainer,
    average_decay,
    check_shares,
    choose_dtype,
    learning_rate,
    train,
)
from roadseg_train.fit.options import FitOptions
from roadseg_train.fit.progress import Progress, Summary
from roadseg_train.fit.run import RunRecord
from roadseg_train.storage.path import StoragePath, storage_path


class Host:
    """A host that does nothing but end the run, on request or by a crash."""

    def __init__(self, *, stop_after: int | None = None, crash_after: int | None = None) -> None:
        self.stop_after, self.crash_after = stop_after, crash_after
        self.reported: list[dict[str, float]] = []
        self.shown: list[Progress] = []

    def report(self, metrics: dict[str, float]) -> None:
        self.reported.append(metrics)
        if metrics["step"] == self.crash_after:
            raise KeyboardInterrupt

    def next_action(self) -> Action:
        return Action.STOP if self.stop_after == self.shown[-1].step else Action.CONTINUE

    def show(self, progress: Progress) -> None:
        self.shown.append(progress)


def run(
    config: TrainConfig, data: Path, place: StoragePath, host: Host | None = None, checkpoint_every_steps: int = 2
) -> Summary:
    """Train into a place, from its newest checkpoint on."""
    record = RunRecord.of(config=config, data=[str(data)], split="fit")
    options = FitOptions(
        0, num_cpus=1, gpu=False, num_loaders=1, compiled=False, checkpoint_every_steps=checkpoint_every_steps
    )
    return train(place, record, options, host=host or Host())


def weights(place: StoragePath) -> dict[str, torch.Tensor]:
    state = checkpoint.read_newest(place)
    assert state is not None
    average: dict[str, torch.Tensor] = state["average"]
    return average


def test_a_run_that_was_cut_ends_as_the_undisturbed_one(place: StoragePath, camvid: Path, config: TrainConfig) -> None:
    run(config, camvid, place / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, camvid, place / "cut", Host(crash_after=2))
    rest = Host()
    run(config, camvid, place / "cut", rest, checkpoint_every_steps=3)  # the interval does not matter
    assert [metrics["step"] for metrics in rest.reported] == [3, 6]
    torch.testing.assert_close(weights(place / "cut"), weights(place / "whole"), rtol=0, atol=0)


def test_a_run_that_is_asked_to_stop_saves_between_checkpoints(
    tmp_path: Path, camvid: Path, config: TrainConfig
) -> None:
    run(config, camvid, storage_path(tmp_path / "whole"))
    first = Host(stop_after=3)
    summary = run(config, camvid, storage_path(tmp_path / "stopped"), first)
    assert (summary.stopped, summary.step, summary.num_images) == (True, 3, 12)
    assert [metrics["step"] for metrics in first.reported] == [2, 3]
    assert "heldout_road_iou" not in first.reported[-1]  # leaving is urgent
    summary = run(config, camvid, storage_path(tmp_path / "stopped"))
    assert (summary.stopped, summary.step, summary.num_images) == (False, 6, 24)
    torch.testing.assert_close(
        weights(storage_path(tmp_path / "stopped")), weights(storage_path(tmp_path / "whole")), rtol=0, atol=0
    )


def test_another_seed_is_another_run(tmp_path: Path, camvid: Path, config: TrainConfig) -> None:
    short = config.model_copy(update={"num_steps": 2})
    run(short, camvid, storage_path(tmp_path / "0"))
    run(short.model_copy(update={"seed": 1}), camvid, storage_path(tmp_path / "1"))
    key = "module.unet.head.weight"
    assert not torch.equal(weights(storage_path(tmp_path / "0"))[key], weights(storage_path(tmp_path / "1"))[key])


def test_it_learns_the_drawn_road(tmp_path: Path, camvid: Path, config: TrainConfig) -> None:
    longer = config.model_copy(update={"num_steps": 60, "ema_decay": 0.9})
    summary = run(longer, camvid, storage_path(tmp_path), checkpoint_every_steps=60)
    # Everything called road would score the road's own share, a third, on the held-out frames.
    assert summary.best_heldout["road_iou"] > 0.6
    assert summary.best_step == 60


def test_progress_counts_every_step(tmp_path: Path, camvid: Path, config: TrainConfig) -> None:
    host = Host()
    summary = run(config, camvid, storage_path(tmp_path), host)
    assert [progress.step for progress in host.shown] == [1, 2, 3, 4, 5, 6]
    assert host.shown[0].heldout_iou is None
    assert host.shown[-1].heldout_iou == host.reported[1]["heldout_road_iou"]
    assert host.shown[-1].left_s == 0
    assert all(0 <= progress.wait_share <= 1 for progress in host.shown)
    assert 0 <= summary.data_wait_share <= 1
    assert summary.images_per_s > 0


def test_the_curves_of_a_continued_run_are_one_line(tmp_path: Path, camvid: Path, config: TrainConfig) -> None:
    longer = config.model_copy(update={"num_steps": 30})
    with pytest.raises(KeyboardInterrupt):
        run(longer, camvid, storage_path(tmp_path), Host(crash_after=15), checkpoint_every_steps=15)
    run(longer, camvid, storage_path(tmp_path), checkpoint_every_steps=15)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for tag, steps in {
        "train/loss": [10, 20, 30],
        "train/iou_loss": [10, 20, 30],
        "train/bce_loss": [10, 20, 30],
        "train/learning_rate": [10, 20, 30],
        "train/images_per_s": [10, 20, 30],
        "train/data_wait_share": [10, 20, 30],
        "heldout/road_iou": [15, 30],
        "heldout/f1": [15, 30],
        "heldout/max_f": [15, 30],
    }.items():
        assert [event.step for event in events.Scalars(tag)] == steps, tag


def test_learning_rate(config: TrainConfig) -> None:
    schedule = config.model_copy(update={"num_warmup_steps": 10, "num_steps": 110, "learning_rate": 1.0})
    rates = [learning_rate(step, schedule) for step in (0, 4, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.0])


def test_norms_and_biases_do_not_decay(config: TrainConfig) -> None:
    decaying, others = Trainer(config).optimizer.param_groups
    assert decaying["weight_decay"] == config.weight_decay
    assert others["weight_decay"] == 0
    assert {p.ndim for p in decaying["params"]} == {4}
    assert {p.ndim for p in others["params"]} == {1}


def random_batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    picture = torch.randint(0, 256, (size, 3, 32, 48), dtype=torch.uint8)
    return picture, torch.randint(0, 3, (size, 2, 32, 48), dtype=torch.uint8)


def test_the_average_follows_the_weights(config: TrainConfig) -> None:
    # After the first copy, step 1 keeps (1 + 1) / (10 + 1) of it.
    trainer = Trainer(config)
    batch = random_batch(4)
    trainer.train_step([batch])
    first = trainer.network.unet.head.weight.detach().clone()
    trainer.train_step([batch])
    second = trainer.network.unet.head.weight.detach()
    average = trainer.average.state_dict()["module.unet.head.weight"]
    torch.testing.assert_close(average, (2 * first + 9 * second) / 11)


def test_the_average_keeps_more_as_it_gets_older(config: TrainConfig) -> None:
    schedule = config.model_copy(update={"ema_decay": 0.9})
    # (1 + 8) / (10 + 8) = 1/2; from step 80 on, where 81 / 90 is 0.9, what is configured.
    assert [average_decay(step, schedule) for step in (8, 80, 81, 4000)] == pytest.approx([0.5, 0.9, 0.9, 0.9])
    assert average_decay(8, config.model_copy(update={"ema_decay": 0.0})) == 0


def test_micro_batches_add_up_to_the_mean_gradient(config: TrainConfig) -> None:
    batches = [random_batch(2), random_batch(2)]
    gradients, losses = [], []
    for batch in batches:
        alone = Trainer(config)
        losses.append(alone.train_step([batch])["loss"])
        gradients.append(alone.network.unet.head.weight.grad)
    together = Trainer(config)
    assert together.train_step(batches)["loss"] == pytest.approx(sum(losses) / 2)
    assert gradients[0] is not None
    assert gradients[1] is not None
    torch.testing.assert_close(together.network.unet.head.weight.grad, (gradients[0] + gradients[1]) / 2)
    assert together.step == 1


def test_a_compiled_network_takes_the_same_steps(config: TrainConfig) -> None:
    small = config.model_copy(update={"widths": (16, 16)})  # the compiler takes its time
    plain, compiled = Trainer(small), Trainer(small, compiled=True)
    batch = random_batch(4)
    for _ in range(2):
        assert compiled.train_step([batch]) == pytest.approx(plain.train_step([batch]), rel=1e-4)
    assert compiled.state()["network"].keys() == plain.state()["network"].keys()
    assert compiled.state()["average"].keys() == plain.state()["average"].keys()


def test_a_requested_precision_is_used(config: TrainConfig) -> None:
    dtype, reason = choose_dtype(config.model_copy(update={"precision": "bfloat16"}), torch.device("cpu"))
    assert dtype == torch.bfloat16
    assert "as requested" in reason


def test_every_worker_must_have_an_image(config: TrainConfig) -> None:
    check_shares(config, 4)
    with pytest.raises(RunError, match=r"5 workers cannot share 4 images .* at most 4"):
        check_shares(config, 5)
    with pytest.raises(RunError, match=r"3 workers cannot share 2 images .* at most 2"):
        check_shares(config.model_copy(update={"accumulate": 2}), 3)
    with pytest.raises(RunError, match="batch of 4 cannot be split into 3"):
        check_shares(config.model_copy(update={"accumulate": 3}), 1)
