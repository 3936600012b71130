from pathlib import Path

import pytest
import torch

from roadseg_train import export
from roadseg_train.errors import ArtefactError
from roadseg_train.export import ONNX_FILE, TORCH_FILE, export_programs, max_difference
from roadseg_train.model import RoadProgram, UNet


def program(seed: int) -> RoadProgram:
    torch.manual_seed(seed)
    return RoadProgram(UNet((4, 8, 8))).eval()


def test_both_programs_agree_at_every_size_tried(tmp_path: Path) -> None:
    agreement = export_programs(program(0), tmp_path, multiple_px=8)
    assert agreement.max_abs_difference <= export.TOLERANCE
    assert (1, 8, 320) in agreement.sizes_BHW  # one unit high: the smallest that a flat picture becomes
    assert {path.name for path in tmp_path.iterdir()} == {ONNX_FILE, TORCH_FILE}


def test_a_difference_is_seen(tmp_path: Path) -> None:
    export_programs(program(0), tmp_path, multiple_px=8)
    assert max_difference(program(1), tmp_path, [(1, 16, 16)]) > export.TOLERANCE


def test_programs_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ArtefactError, match="nothing was published"):
        export_programs(program(0), tmp_path, multiple_px=8)
