from pathlib import Path

import pytest
import torch

from roadseg_train import checkpoint
from roadseg_train.errors import RunError


def publish(run: Path, step: int) -> None:
    checkpoint.publish_into(run, {"step": step, "w": torch.full((3,), float(step))}, step=step, metrics={"loss": 1.0})


def test_the_newest_is_found_and_old_ones_go(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        publish(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_0000004", "checkpoint_0000010"]
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    state = checkpoint.read_state(newest)
    assert state["step"] == 10
    assert state["w"].tolist() == [10.0, 10.0, 10.0]
    record = checkpoint.read_record(newest)
    assert record is not None
    assert (record.step, record.metrics) == (10, {"loss": 1.0})


@pytest.mark.parametrize("damage", ["cut", "no record", "half a record"])
def test_a_checkpoint_cut_short_is_never_used(tmp_path: Path, damage: str) -> None:
    publish(tmp_path, 2)
    publish(tmp_path, 4)
    state, record = (tmp_path / "checkpoint_0000004" / name for name in (checkpoint.STATE, checkpoint.RECORD))
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:-10])
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text(record.read_text()[:20])
    assert checkpoint.newest(tmp_path) == tmp_path / "checkpoint_0000002"
    with pytest.raises(RunError, match="not a whole checkpoint"):
        checkpoint.read_state(tmp_path / "checkpoint_0000004")


def test_an_empty_run_has_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
