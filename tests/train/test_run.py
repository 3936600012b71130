from pathlib import Path

import pytest
import torch

from roadseg_train import checkpoint
from roadseg_train.config import TrainConfig
from roadseg_train.errors import RunError
from roadseg_train.loop import Trainer
from roadseg_train.run import RunRecord, load_program, open_run, read_run
from roadseg_train.storage import Place, at


@pytest.fixture
def record(config: TrainConfig, camvid: Path) -> RunRecord:
    return RunRecord.of(config=config, data=[str(camvid)], split="fit")


def test_a_run_is_continued_with_the_same_settings(place: Place, record: RunRecord) -> None:
    open_run(place / "a", record)
    open_run(place / "a", record)
    assert read_run(place / "a") == record


def test_other_settings_are_named(place: Place, record: RunRecord) -> None:
    open_run(place / "a", record)
    other = record.model_copy(update={"config": record.config.model_copy(update={"num_steps": 99})})
    with pytest.raises(RunError, match=r"num_steps: 6 then, 99 now"):
        open_run(place / "a", other)


def test_other_frames_are_other_settings(place: Place, record: RunRecord) -> None:
    open_run(place / "a", record)
    fewer = record.model_copy(update={"fit_frames": record.fit_frames[:-1]})
    with pytest.raises(RunError, match=r"frames: 16 \(digest .*\) then, 15 \(digest .*\) now"):
        open_run(place / "a", fewer)


def test_the_frames_that_are_fitted_on_are_kept(record: RunRecord) -> None:
    assert len(record.fit_frames) == 16
    assert record.fit_frames[0] == "CamVid/train/0001TP_00000"


def test_a_folder_of_something_else_is_left_alone(place: Place, record: RunRecord) -> None:
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="is not a run"):
        open_run(place, record)
    assert place.names() == ["thesis.txt"]


def test_what_is_no_run_is_said(place: Place) -> None:
    with pytest.raises(RunError, match=r"it has no run\.json"):
        read_run(place)


def test_frames_of_the_split_and_of_the_other_side(record: RunRecord) -> None:
    # ten frames a drive: two held out, none of the eight before them spared
    assert (len(record.frames("fit")), len(record.heldout_frames())) == (16, 4)
    assert record.model_copy(update={"split": "trainval"}).heldout_frames() == []


def test_the_averaged_network_is_loaded(tmp_path: Path, record: RunRecord) -> None:
    trainer = Trainer(record.config)
    with torch.no_grad():
        for weights in trainer.average.parameters():
            weights.fill_(3.0)
    checkpoint.publish_into(at(tmp_path), trainer.state(), step=5, metrics={})
    program, step = load_program(at(tmp_path), record.config)
    assert step == 0
    assert all(bool((weights == 3.0).all()) for weights in program.parameters())
    assert not program.training


def test_a_run_without_checkpoint_says_what_to_do(tmp_path: Path, config: TrainConfig) -> None:
    with pytest.raises(RunError, match="run fit until"):
        load_program(at(tmp_path), config)
