"""Exports the ONNX and the PyTorch program of an artefact from the same weights, and compares them."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from pydantic import BaseModel

from roadseg_train.errors import ArtefactError
from roadseg_train.network.half import HalfProgram
from roadseg_train.network.model import RoadProgram

ONNX_FILE, TORCH_FILE = "model.onnx", "model.pt2"
INPUT_NAME, OUTPUT_NAME = "image", "prob"

# About one hundredth of a level of the 8-bit probability.
TOLERANCE = 5e-5
# (batch, height, width), the sides in multiples of `multiple_px`: usual, wide, flat, small and a batch.
AGREEMENT_SIZES = ((1, 23, 30), (1, 24, 75), (1, 1, 40), (1, 2, 2), (3, 4, 5))


class Agreement(BaseModel, extra="forbid", frozen=True):
    """The field `agreement` of the manifest."""

    max_abs_difference: float
    tolerance: float
    sizes_BHW: list[tuple[int, int, int]]


def export_programs(program: RoadProgram, folder: Path, *, multiple_px: int) -> Agreement:
    """Write model.onnx and model.pt2 into a folder, and compare what they compute with the program.

    The program is in eval mode, on the CPU, with a network from `half.round_to_half`; weights are stored as float16.
    The exports take any batch size, and any height and width that are multiples of `multiple_px`.

    Raises:
        ArtefactError: they differ by more than `TOLERANCE`.
    """
    unit = multiple_px
    example = torch.zeros(2, 6 * unit, 8 * unit, 3, dtype=torch.uint8)
    dims = {0: torch.export.Dim("batch", min=1), **{axis: unit * torch.export.Dim(f"units_{axis}") for axis in (1, 2)}}
    exported = torch.export.export(HalfProgram(program), (example,), dynamic_shapes={INPUT_NAME: dims})
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # it contains paths of this machine
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
            f"the exported programs differ from the network by {difference:.2g} (limit {TOLERANCE:.0e}); "
            "nothing was published: report this with the library versions"
        )
    return Agreement(max_abs_difference=difference, tolerance=TOLERANCE, sizes_BHW=sizes)


@torch.inference_mode()
def max_difference(program: RoadProgram, folder: Path, sizes_BHW: list[tuple[int, int, int]]) -> float:
    """The largest difference in probability of a program, in eval mode on the CPU, and its exports on random images."""
    session = onnxruntime.InferenceSession(folder / ONNX_FILE, providers=["CPUExecutionProvider"])
    # The guards only forbid feature maps with a side of 1, which are tried here.
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
