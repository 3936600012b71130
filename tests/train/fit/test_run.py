from pathlib import Path

import pytest
import torch

from roadseg_train.config import TrainConfig
from roadseg_train.errors import RunError
from roadseg_train.fit import checkpoint
from roadseg_train.fit.loop import Trainer
from roadseg_train.fit.run import Member, RunRecord, load_runs, open_run, read_run
from roadseg_train.network.model import UNet
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
    with pytest.raises(RunError, match="is not a run"):
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
    checkpoint.publish_into(run, trainer.state(), step=5, metrics={})
    return run


def test_the_averaged_network_is_loaded(tmp_path: Path, record: RunRecord) -> None:
    run = save_run(storage_path(tmp_path / "a"), record, 3.0)
    loaded = load_runs([run], views=Views())
    assert loaded.record == record
    assert loaded.members == [Member(run=str(tmp_path / "a"), config=record.config, step=0)]
    (network,) = loaded.program.networks
    assert isinstance(network, UNet)
    assert bool((network.head.weight == 3.0).all())
    assert not loaded.program.training
    assert loaded.program.views == Views()


def test_several_runs_are_one_program(tmp_path: Path, record: RunRecord) -> None:
    other = record.model_copy(
        update={"config": record.config.model_copy(update={"seed": 1, "num_steps": 9}), "fit_frames": ["new/train/x"]}
    )
    runs = [save_run(storage_path(tmp_path / "a"), record, 1.0), save_run(storage_path(tmp_path / "b"), other, 2.0)]
    loaded = load_runs(runs, views=Views(mirror=True))
    assert loaded.record.fit_frames == [*record.fit_frames, "new/train/x"]
    assert (loaded.record.config, loaded.record.data) == (record.config, record.data)
    assert [member.config for member in loaded.members] == [record.config, other.config]
    heads = [network.get_parameter("head.weight").detach() for network in loaded.program.networks]
    assert [float(weights.mean()) for weights in heads] == [1.0, 2.0]
    assert loaded.program.views == Views(mirror=True)


def test_runs_that_cannot_be_one_program_are_refused(tmp_path: Path, record: RunRecord) -> None:
    run = save_run(storage_path(tmp_path / "a"), record, 1.0)
    with pytest.raises(RunError, match="given twice"):
        load_runs([run, run], views=Views())
    open_run(storage_path(tmp_path / "b"), record.model_copy(update={"split": "trainval"}))
    with pytest.raises(RunError, match=r"'fit' and .*/b on 'trainval'; give runs of one split"):
        load_runs([run, storage_path(tmp_path / "b")], views=Views())
    larger = record.config.model_copy(update={"short_side_px": 64})
    open_run(storage_path(tmp_path / "c"), record.model_copy(update={"config": larger}))
    with pytest.raises(RunError, match="different sizes; give runs that have short_side_px"):
        load_runs([run, storage_path(tmp_path / "c")], views=Views())


def test_a_run_without_checkpoint_says_what_to_do(tmp_path: Path, record: RunRecord) -> None:
    open_run(storage_path(tmp_path), record)
    with pytest.raises(RunError, match="run fit until"):
        load_runs([storage_path(tmp_path)], views=Views())
