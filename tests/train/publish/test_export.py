import math
import sys
from pathlib import Path

import onnx
import pytest
import torch

from roadseg_train.errors import ArtefactError
from roadseg_train.network.half import round_to_half
from roadseg_train.network.model import RoadProgram, UNet
from roadseg_train.network.views import Views
from roadseg_train.publish import export
from roadseg_train.publish.export import ONNX_FILE, TORCH_FILE, export_programs, max_difference


def program(seed: int, views: Views | None = None) -> RoadProgram:
    torch.manual_seed(seed)
    return RoadProgram(round_to_half(UNet((16, 32, 32)).eval()), views=views).eval()


@pytest.mark.parametrize(
    "source",
    [
        program(0),
        program(0, views=Views(mirror=True)),
        program(0, views=Views(mirror=True, scales=(0.5, 1.0, 1.25))),
    ],
)
def test_both_programs_agree_at_every_size(tmp_path: Path, source: RoadProgram) -> None:
    agreement = export_programs(source, tmp_path, multiple_px=8)
    assert agreement.max_abs_difference <= export.TOLERANCE
    assert (1, 8, 320) in agreement.sizes_BHW  # the smallest height that a flat image can get
    assert {path.name for path in tmp_path.iterdir()} == {ONNX_FILE, TORCH_FILE}


def test_a_difference_is_measured(tmp_path: Path) -> None:
    export_programs(program(0), tmp_path, multiple_px=8)
    assert max_difference(program(1), tmp_path, [(1, 16, 16)]) > export.TOLERANCE


def test_programs_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ArtefactError, match="nothing was published"):
        export_programs(program(0), tmp_path, multiple_px=8)


def test_weights_are_stored_in_half_precision(tmp_path: Path) -> None:
    source = program(0)
    export_programs(source, tmp_path, multiple_px=8)
    state = torch.export.load(tmp_path / TORCH_FILE).state_dict
    assert {weights.dtype for weights in state.values() if weights.ndim == 4} == {torch.float16}
    stored = onnx.load(tmp_path / ONNX_FILE).graph.initializer
    large = [
        tensor.data_type for tensor in stored if math.prod(tensor.dims) > 8192
    ]  # the exporter stores small ones as float32
    assert len(large) > 3
    assert set(large) == {onnx.TensorProto.FLOAT16}


def test_the_files_contain_no_paths_of_this_machine(tmp_path: Path) -> None:
    export_programs(program(0), tmp_path, multiple_px=8)
    for name in (ONNX_FILE, TORCH_FILE):
        content = (tmp_path / name).read_bytes()
        assert b"weight" in content  # the file is not compressed, so a path would be found
        for path in (Path(export.__file__).parents[2], Path(torch.__file__).parents[1], Path(sys.prefix), 'File "'):
            assert str(path).encode() not in content
