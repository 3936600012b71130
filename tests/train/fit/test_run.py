import json
from pathlib import Path

import pytest
import torch

from roadseg_train.config import TrainConfig
from roadseg_train.errors import RunError
from roadseg_train.fit import checkpoint
from roadseg_train.fit.loop import Trainer
from roadseg_train.fit.run import RunRecord, load_run, open_run, read_run
from roadseg_train.network.views import Views
from roadseg_train.storage.path import StoragePath, storage_path


@pytest.fixture
def record(config: TrainConfig, camvid: Path) -> RunRecord:
    return RunRecord.of(config=config, data=[str(camvid)], split="fit")


def test_a_run_is_continued_with_the_same_settings(place: StoragePath, record: RunRecord) -> None:
    open_run(place / "a", record)
    open_run(place / "a", record)
    assert read_run(place / "a") == record


def test_other_settings_are_named(place: StoragePath, record: RunRecord) -> None:
    open_run(place / "a", record)
    other = record.model_copy(update={"config": record.config.model_copy(update={"num_steps": 99})})
    with pytest.raises(RunError, match=r"num_steps: 6 then, 99 now"):
        open_run(place / "a", other)


def test_other_frames_are_other_settings(place: StoragePath, record: RunRecord) -> None:
    open_run(place / "a", record)
    fewer = record.model_copy(update={"fit_frames": record.fit_frames[:-1]})
    with pytest.raises(RunError, match=r"frames: 16 \(digest .*\) then, 15 \(digest .*\) now"):
        open_run(place / "a", fewer)


def test_the_frames_that_are_fitted_on_are_kept(record: RunRecord) -> None:
    assert len(record.fit_frames) == 16
    assert record.fit_frames[0] == "CamVid/train/0001TP_00000"


def test_a_folder_of_something_else_is_left_alone(place: StoragePath, record: RunRecord) -> None:
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not a run"):
        open_run(place, record)
    assert place.names() == ["thesis.txt"]


def test_what_is_no_run_is_said(place: StoragePath) -> None:
    with pytest.raises(RunError, match=r"it has no run\.json"):
        read_run(place)


def test_frames_of_the_split_and_of_the_other_side(record: RunRecord) -> None:
    # ten frames a drive: two held out, none of the eight before them spared
    assert (len(record.frames("fit")), len(record.heldout_frames())) == (16, 4)
    assert record.model_copy(update={"split": "trainval"}).heldout_frames() == []


def save_run(run: StoragePath, record: RunRecord, value: float) -> StoragePath:
    """A run whose averaged network has one value everywhere."""
    trainer = Trainer(record.config)
    with torch.no_grad():
        for weights in trainer.average.parameters():
            weights.fill_(value)
    open_run(run, record)
    checkpoint.save(run, trainer.state(), step=5, metrics={})
    return run


def test_the_averaged_network_is_loaded(tmp_path: Path, record: RunRecord) -> None:
    loaded = load_run(save_run(storage_path(tmp_path / "a"), record, 3.0), views=Views(mirror=True))
    assert (loaded.record, loaded.step) == (record, 0)
    assert bool((loaded.program.network.head.weight == 3.0).all())
    assert not loaded.program.training
    assert loaded.program.views == Views(mirror=True)


def test_a_run_without_checkpoint_says_what_to_do(tmp_path: Path, record: RunRecord) -> None:
    open_run(storage_path(tmp_path), record)
    with pytest.raises(RunError, match="run fit until"):
        load_run(storage_path(tmp_path), views=Views())


def test_a_run_of_an_earlier_version_is_resumed(place: StoragePath, record: RunRecord) -> None:
    former = {"checkpoint_every_steps": 500, "lovasz_weight": 0.0}
    saved = record.model_dump(mode="json")
    (place / "a" / "run.json").write_text(json.dumps(saved | {"config": saved["config"] | former}))
    open_run(place / "a", record)
    (place / "b" / "run.json").write_text(json.dumps(saved | {"config": saved["config"] | {"lovasz_weight": 1.0}}))
    with pytest.raises(RunError, match=r"Lovász loss .* was removed(.|\n)*; start a new run"):
        open_run(place / "b", record)
