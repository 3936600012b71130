"""The two programs of an artefact, exported together from the same weights, and how well they agree."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from pydantic import BaseModel, ConfigDict

from roadseg_train.errors import ArtefactError
from roadseg_train.network.half import HalfProgram
from roadseg_train.network.model import RoadProgram

ONNX_FILE, TORCH_FILE = "model.onnx", "model.pt2"
INPUT_NAME, OUTPUT_NAME = "image", "prob"

# Two orders below one level of the 8-bit probability that is served.
TOLERANCE = 5e-5
# In multiples of the input's unit: usual, wide, flat, small and a batch.
AGREEMENT_SIZES = ((1, 23, 30), (1, 24, 75), (1, 1, 40), (1, 2, 2), (3, 4, 5))


class Agreement(BaseModel):
    """The manifest's `agreement`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_abs_difference: float
    tolerance: float
    sizes_BHW: list[tuple[int, int, int]]  # the manifest's own name


def export_programs(program: RoadProgram, folder: Path, *, multiple_px: int) -> Agreement:
    """Write model.onnx and model.pt2 and compare both, as read back, with the program itself.

    Batch, height and width stay free; height and width come in multiples of `multiple_px`. Weights
    are stored as float16.

    Args:
        program: in eval mode, on the CPU, of networks that `half.round_to_half` made.
        folder: where the two files go.
        multiple_px: the size rule's unit.

    Raises:
        ArtefactError: the programs differ by more than `TOLERANCE`.
    """
    unit = multiple_px
    example = torch.zeros(2, 6 * unit, 8 * unit, 3, dtype=torch.uint8)
    dims = {0: torch.export.Dim("batch", min=1), **{axis: unit * torch.export.Dim(f"units_{axis}") for axis in (1, 2)}}
    exported = torch.export.export(HalfProgram(program), (example,), dynamic_shapes={INPUT_NAME: dims})
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # it tells the paths of this machine
    torch.export.save(exported, folder / TORCH_FILE)
    onnx_program = torch.onnx.export(
        exported, input_names=[INPUT_NAME], output_names=[OUTPUT_NAME], dynamo=True, verbose=False
    )
    assert onnx_program is not None
    onnx_program.save(folder / ONNX_FILE)
    sizes = [(b, h * unit, w * unit) for b, h, w in AGREEMENT_SIZES]
    difference = max_difference(program, folder, sizes)
    if difference > TOLERANCE:
        raise ArtefactError(
            f"the exported programs differ from the model by {difference:.2g} (at most {TOLERANCE:.0e} is allowed); "
            "nothing was published: report this with the library versions"
        )
    return Agreement(max_abs_difference=difference, tolerance=TOLERANCE, sizes_BHW=sizes)


@torch.inference_mode()
def max_difference(program: RoadProgram, folder: Path, sizes_BHW: list[tuple[int, int, int]]) -> float:
    """Largest absolute difference of the probability between the program and its two exported forms.

    Args:
        program: in eval mode, on the CPU.
        folder: holds model.onnx and model.pt2.
        sizes_BHW: batch sizes and picture sizes to try, with random pixels of a fixed seed.
    """
    session = onnxruntime.InferenceSession(folder / ONNX_FILE, providers=["CPUExecutionProvider"])
    # Unguarded: the guards only say that no side of a feature map may be 1; sizes where one is are tried here.
    exported = torch.export.load(folder / TORCH_FILE).module(check_guards=False)
    rng = np.random.default_rng(0)
    largest = 0.0
    for size in sizes_BHW:
        image_BHWC = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        expected_BHW = program(torch.from_numpy(image_BHWC)).numpy()
        (onnx_BHW,) = session.run([OUTPUT_NAME], {INPUT_NAME: image_BHWC})
        torch_BHW = exported(torch.from_numpy(image_BHWC)).numpy()
        largest = max(largest, *(float(np.abs(found - expected_BHW).max()) for found in (onnx_BHW, torch_BHW)))
    return largest
