from pathlib import Path
from typing import Any

import pytest
import torch

from roadseg_train import checkpoint
from roadseg_train.config import TrainConfig
from roadseg_train.dataset import find_frames
from roadseg_train.errors import RunError
from roadseg_train.loop import Trainer, choose_dtype, learning_rate, train
from roadseg_train.split import select
from roadseg_train.storage import Place, at


class SilentBar:
    def set_description(self, desc: str) -> None: ...

    def update(self, n: int) -> None: ...


def run(config: TrainConfig, data: Path, place: Place, stop_after: int | None = None) -> list[dict[str, float]]:
    """Train into a place, as a run that is killed after a checkpoint would where `stop_after` says so."""
    reported: list[dict[str, float]] = []

    def save(state: dict[str, Any], step: int, metrics: dict[str, float]) -> None:
        checkpoint.publish_into(place, state, step=step, metrics=metrics)
        reported.append(metrics)
        if step == stop_after:
            raise KeyboardInterrupt

    frames = find_frames(data)
    train(
        config,
        select(frames, "fit"),
        select(frames, "heldout"),
        run=place,
        save=save,
        make_bar=lambda _done, _total: SilentBar(),
    )
    return reported


def weights(place: Place) -> dict[str, torch.Tensor]:
    state = checkpoint.read_newest(place)
    assert state is not None
    average: dict[str, torch.Tensor] = state["average"]
    return average


def test_a_run_that_was_cut_ends_as_the_undisturbed_one(place: Place, camvid: Path, config: TrainConfig) -> None:
    run(config, camvid, place / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, camvid, place / "cut", stop_after=2)
    metrics = run(config, camvid, place / "cut")
    assert [m["step"] for m in metrics] == [4, 6]
    torch.testing.assert_close(weights(place / "cut"), weights(place / "whole"), rtol=0, atol=0)


def test_another_seed_is_another_run(tmp_path: Path, camvid: Path, config: TrainConfig) -> None:
    short = config.model_copy(update={"num_steps": 2})
    run(short, camvid, at(tmp_path / "0"))
    run(short.model_copy(update={"seed": 1}), camvid, at(tmp_path / "1"))
    key = "module.unet.head.weight"
    assert not torch.equal(weights(at(tmp_path / "0"))[key], weights(at(tmp_path / "1"))[key])


def test_it_learns_the_drawn_road(tmp_path: Path, camvid: Path, config: TrainConfig) -> None:
    longer = config.model_copy(update={"num_steps": 60, "checkpoint_every_steps": 60, "ema_decay": 0.9})
    (metrics,) = run(longer, camvid, at(tmp_path))
    # Everything called road would score the road's own share, a third, on the held-out frames.
    assert metrics["heldout_road_iou"] > 0.6


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


def test_the_average_follows_the_weights(config: TrainConfig) -> None:
    # With a decay of one half the average is the mean of itself and the new weights, after the first copy.
    trainer = Trainer(config)
    picture = torch.randint(0, 256, (4, 3, 32, 48), dtype=torch.uint8)
    truth = torch.randint(0, 3, (4, 2, 32, 48), dtype=torch.uint8)
    trainer.train_step(picture, truth)
    first = trainer.network.head.weight.detach().clone()
    trainer.train_step(picture, truth)
    second = trainer.network.head.weight.detach()
    average = trainer.average.state_dict()["module.unet.head.weight"]
    torch.testing.assert_close(average, (first + second) / 2)


def test_an_asked_for_precision_is_taken(config: TrainConfig) -> None:
    dtype, reason = choose_dtype(config.model_copy(update={"precision": "bfloat16"}), torch.device("cpu"))
    assert dtype == torch.bfloat16
    assert "asked for" in reason


def test_a_batch_must_be_shared_equally(tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadseg_train.loop._worker", lambda: (0, 3))
    with pytest.raises(RunError, match="batch of 4 cannot be shared by 3 workers"):
        train(config, [], [], run=at(tmp_path), save=lambda *_: None, make_bar=lambda _d, _t: SilentBar())
