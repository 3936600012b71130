"""Engines compute road probability from a batch of pictures; this chooses and loads the one for a replica.

Axes: B batch, H height, W width, C channel (R, G, B). Probability is uint8: 255 is certainly road, 0 not.
"""

import importlib.util
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Literal, Protocol

import numpy as np

from roadseg_serve.errors import StartError
from roadseg_serve.messages import UInt8Array
from roadseg_serve.models.artefact import Artefact
from roadseg_serve.models.manifest import INT8_FILE, ONNX_FILE, TORCH_FILE, SizeRule

EngineName = Literal["openvino", "openvino-int8", "onnxruntime", "torch"]
EngineChoice = Literal["auto", EngineName]


# What each engine needs: an installed library, and one file of the model version.
NEEDS: dict[EngineName, tuple[str, str]] = {
    "openvino": ("openvino", ONNX_FILE),
    "openvino-int8": ("openvino", INT8_FILE),
    "onnxruntime": ("onnxruntime", ONNX_FILE),
    "torch": ("torch", TORCH_FILE),
}
INSTALL = {
    "openvino": "pip install 'roadseg[serve]'",
    "onnxruntime": "pip install onnxruntime",
    "torch": "pip install torch",
}


class Engine(Protocol):
    """A loaded program; it serves one call at a time, from any thread."""

    def predict(self, image_BHWC: UInt8Array) -> UInt8Array:
        """Road probability of a batch.

        Args:
            image_BHWC: RGB, uint8 in [0, 255]; H and W are multiples of the size rule's `multiple_px`.

        Returns:
            prob_BHW, uint8 in [0, 255], which later calls do not change.
        """


def create_engine(name: EngineChoice, version: Artefact, *, num_threads: int, gpu: bool = False) -> Engine:
    """Load the program of a model version, for `num_threads` CPU threads in each call.

    `auto` means the best engine installed; a named engine is never replaced by another. `gpu` says whether this process
    has a GPU or a share of one.

    Raises:
        ArtefactError: the version has no program for the engine, or the program cannot be loaded.
        StartError: the engine's library is not installed, or does not find the GPU.
    """
    libraries = {library for library, _ in NEEDS.values() if importlib.util.find_spec(library)}
    if name == "auto":
        name = choose(libraries, gpu=gpu)
    library, program = NEEDS[name]
    if library not in libraries:
        raise StartError(
            f"the engine {name} needs {library}, which is not installed; {INSTALL[library]}, or choose another engine"
        )
    path = version.path_of(program)
    # Imported only when used: the libraries are a gigabyte together.
    if library == "torch":
        from roadseg_serve.engines.torch import TorchEngine  # noqa: PLC0415

        return TorchEngine(path, num_threads=num_threads, gpu=gpu)
    if library == "onnxruntime":
        from roadseg_serve.engines.onnxruntime import OnnxRuntimeEngine  # noqa: PLC0415

        return OnnxRuntimeEngine(path, num_threads=num_threads)
    from roadseg_serve.engines.openvino import OpenVinoEngine  # noqa: PLC0415

    return OpenVinoEngine(path, num_threads=num_threads)


def program_of(name: EngineChoice, *, gpu: bool) -> str:
    """The file of a model version that an engine loads; on a CPU, `auto` always means the same file."""
    if name == "auto":
        name = "torch" if gpu else "openvino"
    return NEEDS[name][1]


def choose(libraries: Collection[str], *, gpu: bool) -> EngineName:
    """The engine that `auto` means, given the installed libraries; raises StartError if none of them can serve."""
    if gpu:
        return "torch"  # even if it is not installed: an idle GPU is an error
    if "openvino" in libraries:
        return "openvino"
    if "onnxruntime" in libraries:  # computes the same, but is slower
        return "onnxruntime"
    raise StartError(f"no engine is installed; {INSTALL['openvino']}")


def predict_all(engine: Engine, images_HWC: Sequence[UInt8Array]) -> list[UInt8Array]:
    """The prob_HW, uint8 in [0, 255], of pictures of any sizes, those of equal shape in one batch; keeps the order."""
    indices: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, image_HWC in enumerate(images_HWC):
        indices[image_HWC.shape].append(index)
    prob_by_index: dict[int, UInt8Array] = {}
    for same_shape in indices.values():
        prob_BHW = engine.predict(np.stack([images_HWC[index] for index in same_shape]))
        prob_by_index.update(zip(same_shape, prob_BHW, strict=True))
    return [prob_by_index[index] for index in range(len(images_HWC))]


def warm_up(engine: Engine, size_rule: SizeRule, batch_sizes: Collection[int] = (1,)) -> None:
    """Predict a 4:3 frame once for each batch size, so that no user waits for one-time preparations."""
    long_side_px = min(size_rule.short_side_px * 4 // 3, size_rule.max_long_side_px)
    height, width = (side_px + -side_px % size_rule.multiple_px for side_px in (size_rule.short_side_px, long_side_px))
    for batch_size in batch_sizes:
        engine.predict(np.zeros((batch_size, height, width, 3), np.uint8))
