"""PyTorch: bfloat16 on a GPU, with a CUDA graph for each shape; float32 on the CPU."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch  # noqa: TID251  # the only engine that needs it
from torch import Tensor  # noqa: TID251
from torch.export import ExportedProgram  # noqa: TID251
from torch.export.passes import move_to_device_pass  # noqa: TID251

from roadseg_serve.engines.batch import bucket
from roadseg_serve.errors import ArtefactError, StartError
from roadseg_serve.messages import UInt8Array

# Each graph keeps its input and output on the GPU, so the least recently used ones are dropped.
MAX_GRAPHS = 64
# As PyTorch recommends: the first calls compile, choose kernels and allocate memory.
NUM_CALLS_BEFORE_CAPTURE = 3


class TorchEngine:
    """Runs `model.pt2` on the GPU of this process, or on the CPU with `num_threads` threads for each call."""

    def __init__(self, torch_path: Path, *, num_threads: int, gpu: bool) -> None:
        if gpu and not torch.cuda.is_available():
            raise StartError(
                "num_gpus reserves a GPU for the engine torch, but PyTorch finds none; install the driver and the CUDA "
                "build of torch, or set num_gpus to 0 to compute on the CPU"
            )
        self._num_threads = num_threads
        try:
            exported = torch.export.load(torch_path)
        except Exception as error:  # whatever it raises, the file is the cause
            raise ArtefactError(f"PyTorch cannot load {torch_path}; publish the model again") from error
        if gpu:
            exported = without_checks(move_to_device_pass(exported, "cuda"))
        # Without guards: all they check is that no side of a feature map is 1; see docs/artefact.md.
        program = exported.module(check_guards=False)
        self._compute: Callable[[Tensor], Tensor] = (
            GraphedProgram(program) if gpu else lambda image_BHWC: quantise(program(image_BHWC))
        )

    @torch.inference_mode()
    def predict(self, image_BHWC: UInt8Array) -> UInt8Array:
        """See `Engine`."""
        torch.set_num_threads(self._num_threads)  # one number for all engines of a process, so set it for each call
        prob_BHW: UInt8Array = self._compute(torch.from_numpy(image_BHWC)).numpy()
        return prob_BHW


def without_checks(exported: ExportedProgram) -> ExportedProgram:
    """Remove the program's checks of type and device, in place.

    The exporter puts one before each cast. They expect float32 on the CPU, and would reject bfloat16 and a GPU.
    """
    for node in list(exported.graph.nodes):
        if node.target == torch.ops.aten._assert_tensor_metadata.default:
            exported.graph.erase_node(node)
    return exported


def quantise(prob: Tensor) -> Tensor:
    """`batch.quantise` for tensors on any device, float32 or bfloat16."""
    return torch.floor(prob.float() * 255 + 0.5).to(torch.uint8)


@dataclass(frozen=True)
class Captured:
    """A CUDA graph with its fixed input and output on the GPU, both uint8."""

    graph: torch.cuda.CUDAGraph
    image_BHWC: Tensor
    prob_BHW: Tensor


class GraphedProgram:
    """Runs the program on a GPU: compiled once for all shapes, and captured as a CUDA graph for each shape used.

    A batch is computed at the size of its bucket; the surplus images are leftovers, and their output is dropped. BHWC
    pictures are channels-last in memory, so all convolutions use that layout.
    """

    def __init__(self, program: torch.nn.Module) -> None:
        # Not torch.compile's own CUDA graphs: they work in one thread only, and batches come from several.
        self._program = torch.compile(program.to(memory_format=torch.channels_last), dynamic=True)
        self._memory = torch.cuda.graph_pool_handle()  # shared, because graphs never run at the same time
        self._captured: OrderedDict[tuple[int, ...], Captured] = OrderedDict()

    def __call__(self, image_BHWC: Tensor) -> Tensor:
        """Compute one batch."""
        num_images, *sides = image_BHWC.shape
        shape = (bucket(num_images), *sides)
        if shape not in self._captured:
            self._captured[shape] = self._capture(shape)
        self._captured.move_to_end(shape)
        if len(self._captured) > MAX_GRAPHS:
            self._captured.popitem(last=False)
        captured = self._captured[shape]
        captured.image_BHWC[:num_images].copy_(image_BHWC)
        captured.graph.replay()
        return captured.prob_BHW[:num_images].cpu()  # waits for the result

    def _compute(self, image_BHWC: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            prob_BHW: Tensor = self._program(image_BHWC)
        return quantise(prob_BHW)

    def _capture(self, shape: tuple[int, ...]) -> Captured:
        image_BHWC = torch.zeros(shape, dtype=torch.uint8, device="cuda")
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(NUM_CALLS_BEFORE_CAPTURE):
                self._compute(image_BHWC)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            prob_BHW = self._compute(image_BHWC)
        return Captured(graph, image_BHWC, prob_BHW)
